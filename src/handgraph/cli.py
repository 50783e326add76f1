"""The `handgraph` command.

Every command prints for people, or with `--json` one JSON document on standard output and nothing else there;
progress and messages go to standard error. Exit codes: 0 done, 2 wrong usage or bad input (one line says what
and how to mend it), 1 a fault of handgraph itself, 128 + n stopped by signal n. `HANDGRAPH_DEBUG=1` shows
tracebacks.

What needs PyTorch is imported by the command that uses it, so that `--help` answers at once.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from handgraph.camera import PinholeCamera
from handgraph.console import (
    Answer,
    above_zero,
    folder,
    from_zero,
    new_file,
    numbers,
    port,
    progress,
    say,
    seconds,
    traceback_if_wanted,
    whole_number,
)
from handgraph.errors import ConfigError, HandgraphError
from handgraph.predicting import DEFAULT_DEPTH, SMOOTHING, model_for

EVALUATION_BATCH = 64
EVALUATION_SAMPLES = 1024
DATASET_SAMPLES = 200
"""Frames that `datasets check` reads of each part, unless told to read all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parse(arguments)
    try:
        # Whatever a library prints on the way must not get between the caller and the document.
        with contextlib.redirect_stdout(sys.stderr):
            answer: Answer = args.run(args)
        if not args.json:
            print(answer.text, flush=True)
        elif isinstance(answer.document, Iterator):
            for piece in answer.document:
                print(piece, end="", flush=True)
            print(flush=True)
        else:
            print(json.dumps(answer.document, allow_nan=False), flush=True)
        return answer.code
    except HandgraphError as error:
        say(args.command, str(error))
        traceback_if_wanted()
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, which is its good right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        fault = f"internal fault, {type(error).__name__}: {error} (HANDGRAPH_DEBUG=1 shows where)"
        say(args.command, fault)
        traceback_if_wanted()
        return 1


def run_models(args: argparse.Namespace) -> Answer:
    """The systems and their shipped weights."""
    from handgraph import systems
    from handgraph.estimator import weights_path
    from handgraph.training.checkpoint import find_system, read_meta

    rows = []
    for name in systems.names():
        system = find_system(name)
        module = system.Config().build()
        shipped = weights_path(name)
        title, _, described = (system.__doc__ or name).partition("\n\n")
        rows.append(
            {
                "name": name,
                "paper": " ".join(described.split("\n\n")[0].split()) or " ".join(title.split()),
                "input": "photograph (RGB)" if system.INPUT == "colour" else "depth frame (mm)",
                "outputs": _outputs(system),
                "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
                "weights": str(shipped) if shipped.is_file() else None,
                "trained_on": read_meta(shipped).get("trained_on") if shipped.is_file() else None,
            }
        )
    lines = [
        f"{row['name']}: {row['input']} → {row['outputs']}\n"
        f"  {row['parameters']:,} parameters, weights {'shipped' if row['weights'] else 'not shipped'}"
        f"{', trained on ' + str(row['trained_on']) if row['trained_on'] else ''}\n  {row['paper']}"
        for row in rows
    ]
    return Answer(rows, "\n".join(lines))


def _outputs(system: ModuleType) -> str:
    """What a system answers, in words."""
    what = ["21 keypoints in the image (px)"]
    if hasattr(system, "joints_mm"):
        what.append("21 joints in 3D (mm)")
    elif hasattr(system, "relative_mm"):
        unit = "hand lengths" if hasattr(system, "SCALE_BONE") else "mm"
        what.append(f"21 joints in 3D about the wrist ({unit})")
    if "vertices_mm" in system.Output._fields:
        what.append("mesh")
    return ", ".join(what) + ", with confidences"


def run_predict(args: argparse.Namespace) -> Answer:
    """Hands in pictures, folders, videos and before a webcam. What cannot be used does not stop the rest."""
    from handgraph.predicting import run

    return run(args)


def run_evaluate(args: argparse.Namespace) -> Answer:
    """Errors of a model on the crops of a data set."""
    import numpy as np
    import torch

    from handgraph.estimator import shipped_weights
    from handgraph.evaluation.measures import Measures, inputs
    from handgraph.networks.hourglass import folded
    from handgraph.training.checkpoint import find_system, load_system

    path = args.checkpoint or shipped_weights(args.model or DEFAULT_DEPTH)
    module, name, config, meta = load_system(path)
    module, system = folded(module), find_system(name)
    data, count = _evaluation_data(args, system, config, meta)
    optimise = args.optimise
    if optimise is None and hasattr(system, "lays"):
        optimise = system.lays(config, meta) or None  # as `predict` answers
    measures = Measures(system, optimise)
    if args.looks > 1 and not hasattr(system, "looked_at"):
        raise ConfigError(f"--looks: {name}'s crops are looked at once here; predict --looks turns photos")
    for start in progress(range(0, count, EVALUATION_BATCH), "evaluate"):
        batch = data(np.arange(start, min(start + EVALUATION_BATCH, count)))
        with torch.inference_mode():
            if args.looks > 1:
                output = system.looked_at(module, *inputs(system, batch), args.looks)
            else:
                output = module(*inputs(system, batch))
        measures.update(output, batch)
    result = {"model": name, "data": args.data, **measures.compute()}
    if hasattr(system, "lays"):
        result["optimised"] = bool(optimise)
    figures = []
    if "mpjpe_mm" in result:
        low, high = result["mpjpe_mm_interval95"]
        about = " about the wrist" if result["alignment"] == "wrist" else ""
        figures.append(
            f"{result['mpjpe_mm']:.2f} mm mean joint error{about} (95 % interval {low:.2f} to {high:.2f}), "
            f"{result['pa_mpjpe_mm']:.2f} mm after Procrustes"
        )
        if "scaled_by_all_bones_mpjpe_mm" in result:
            figures[-1] += (
                f", {result['scaled_by_all_bones_mpjpe_mm']:.2f} mm where not one bone but all say how large "
                "the hand is"
            )
    if "epe_px" in result:
        figures.append(
            f"{result['epe_px']:.2f} px mean error, {result['relative_error']:.1%} of the hand's box; "
            f"{result['pck']['0.2']:.1%} of the keypoints within a fifth of it"
        )
    laid = ", laid on the surface," if result.get("optimised") else ""
    return Answer(result, f"{name}{laid} on {args.data}: {'; '.join(figures)}, n = {result['n']}")


def _evaluation_data(
    args: argparse.Namespace, system: ModuleType, config: Any, meta: dict[str, Any]
) -> tuple[Callable[[Any], dict[str, Any]], int]:
    """A function from indices to a batch of crops, and how many there are."""
    kind, _, split = args.data.partition(":")
    if kind == "synthetic" and args.root is None:
        joints = getattr(config, "joints", 21)  # systems of the hand model have no other number
        if joints != 21:
            raise ConfigError(f"--data synthetic has 21 joints, this model predicts {joints}")
        from handgraph.synthetic.depth import DepthSynthesizer
        from handgraph.synthetic.rgb import RgbSynthesizer

        drawing = RgbSynthesizer if system.INPUT == "colour" else DepthSynthesizer
        synthesizer = drawing(args.seed, split or "test", config.input_size)
        return lambda indices: synthesizer.batch(indices.tolist()), args.samples or EVALUATION_SAMPLES
    from handgraph.evaluation.crops import crops_of

    trained = (meta.get("recipe") or {}).get("data") or {}
    crops, notes = crops_of(
        args.data, args.root, system, config, trained, seed=args.seed, partial=args.partial
    )
    for note in notes:
        say("evaluate", note)
    count = min(args.samples or len(crops), len(crops))
    return (lambda indices: crops.batch(indices, indices * 0)), count


def run_train(args: argparse.Namespace) -> Answer:
    """Train as a recipe says."""
    from handgraph.training.loop import train
    from handgraph.training.recipe import load_recipe

    recipe, out = load_recipe(args.recipe, args.overrides), folder(args.out)
    if args.resume and not (out / "last.safetensors").is_file():
        raise ConfigError(f"{out}: holds no run to resume (no last.safetensors); begin it without --resume")
    try:
        result = train(recipe, out, resume=args.resume)
    except ConfigError as error:  # of a recipe that is only known to be wrong once its system is looked at
        message = str(error).removeprefix("recipe: ")
        raise ConfigError(message if message.startswith(str(out)) else f"{args.recipe}: {message}") from None
    figures = ", ".join(f"{name} {value:.3g}" for name, value in result["metrics"].items())
    text = f"{result['step']} of {result['steps']} steps: {result['checkpoint']}\n{figures}"
    return Answer(result, text, 0 if result["finished"] else 128 + (result["signal"] or 0))


def run_synthesize(args: argparse.Namespace) -> Answer:
    """Write synthetic hands with their labels."""
    import time

    from handgraph.synthetic.dataset import write_dataset

    start = time.perf_counter()
    write_dataset(folder(args.out), args.n, args.seed, args.modality, split=args.split)
    seconds = time.perf_counter() - start
    result = {"out": str(args.out), "n": args.n, "seconds": round(seconds, 3)}
    return Answer(result, f"{args.n} frames in {seconds:.1f} s: {args.out}")


def run_score(args: argparse.Namespace) -> Answer:
    """Published predictions, one file or several, against a data set's labels."""
    from handgraph.evaluation.plots import labels, plot_curves, table
    from handgraph.evaluation.score import compare

    found = compare(args.predictions, args.truth, args.dataset, args.format)
    rows = [(file, scored) for file, scored in found if not isinstance(scored, HandgraphError)]
    wrong = [(file, scored) for file, scored in found if isinstance(scored, HandgraphError)]
    if len(found) == 1 and wrong:
        raise wrong[0][1]
    for file, error in wrong:
        say("score", str(error) if file in str(error) else f"{file}: {error}")
    lines = []
    for name, (_, scored) in zip(labels([file for file, _ in rows]), rows, strict=True):
        lines += [f"{name}:"] if len(found) > 1 else []
        lines += _score_lines(scored.figures)
    document: dict[str, Any] = {"files": [{"file": file, **scored.figures} for file, scored in rows]}
    document["files"] += [{"file": file, "error": str(error)} for file, error in wrong]
    if len(found) == 1:
        document = dict(rows[0][1].figures)
    if args.table and rows:
        document["table"] = table(rows, args.table)
        lines = [document["table"]]
    if args.plot and rows:
        plot_curves(args.plot, rows, args.dataset)
        document["plot"] = args.plot
        lines.append(f"picture: {args.plot}")
    return Answer(document, "\n".join(lines), 2 if wrong else 0)


def _score_lines(figures: dict[str, Any]) -> list[str]:
    if "epe_px" in figures:
        return [
            f"keypoint error {figures['epe_px']:.3f} px mean, mPCK {figures['mpck_crop_06']:.1%} (0.01 to "
            f"0.06 of the crop), {figures['n']} hands, {figures['missed']} missed, {figures['extra']} extra"
        ]
    shares = ", ".join(f"{float(figures['success'][mm]):.1%} within {mm} mm" for mm in ("20", "40", "80"))
    mean, median = figures["mean_mm"], figures["median_mm"]
    return [
        f"joint error {mean:.3f} mm mean, {median:.3f} mm median, {figures['n']} frames",
        f"frames by their worst joint: {shares}",
    ]


def run_serve(args: argparse.Namespace) -> Answer:
    """A page and an HTTP interface on this machine: pictures, clips, webcam, whose hand it is, downloads."""
    from handgraph.server.command import run

    result = run(args)
    return Answer(result, f"{result['answered']} requests answered")


def run_export(args: argparse.Namespace) -> Answer:
    """A system as an ONNX file, compared with PyTorch before it is written."""
    from handgraph.estimator import shipped_weights
    from handgraph.runtime import onnx_file

    onnx_file(args.out)  # before PyTorch is imported
    from handgraph.export import export

    result = export(args.checkpoint or shipped_weights(args.model or DEFAULT_DEPTH), args.out)
    apart = f"{result['max_diff_px']:.2g} px"
    if result["max_diff_mm"] is not None:
        apart += f" and {result['max_diff_mm']:.2g} mm"
    return Answer(
        result,
        f"{result['file']}: {result['bytes'] / 1e6:.1f} MB, hands differ by at most {apart}; one crop takes "
        f"{result['ms_torch']:.1f} ms in PyTorch, {result['ms_onnx']:.1f} ms in ONNX Runtime",
    )


def run_personalize(args: argparse.Namespace) -> Answer:
    """One person's hand from a few images without labels, in a file that `predict --subject` uses."""
    from handgraph.estimator import load
    from handgraph.subject import personalize_files, write_subject

    camera = PinholeCamera(*numbers(args.camera, "camera", "fx,fy,cx,cy")) if args.camera else None
    new_file(args.out)
    estimate = load(args.model or model_for(args), checkpoint=args.checkpoint)
    subject, problems = personalize_files(
        args.files, estimate, camera=camera, side=args.side, depth_scale=args.depth_scale
    )
    for problem in problems:
        say("personalize", problem)
    if subject.assumed_camera:
        say(
            "personalize", "no camera is known, so one is assumed, and the size with it; give yours: --camera"
        )
    write_subject(args.out, subject)
    return Answer(
        subject.summary(),
        f"{args.out}: hand length {_with_sd(subject.hand_length_mm, subject.hand_length_sd_mm)}, "
        f"width {_with_sd(subject.hand_width_mm, subject.hand_width_sd_mm)}, "
        f"from {len(subject.files)} of {len(args.files)} images",
        2 if problems else 0,
    )


def _with_sd(millimetres: float, sd: float | None) -> str:
    return f"{millimetres:.1f} mm" if sd is None else f"{millimetres:.1f} ± {sd:.1f} mm"


def run_convert(args: argparse.Namespace) -> Answer:
    """Hands from one file format, joint order, unit, frame or pose representation to another."""
    from handgraph.convert import run

    return Answer(*run(args))


def run_reproduce(args: argparse.Namespace) -> Answer:
    """A paper's table: train its rows, measure them, print the paper's figures beside ours."""
    from handgraph.evaluation.reproduce import list_tables, reproduce
    from handgraph.evaluation.results import markdown, page
    from handgraph.files import atomic_write

    if args.page is not None:
        text = page(args.out)
        with atomic_write(args.page) as part:
            part.write_text(text, encoding="utf-8")
        return Answer({"page": args.page}, f"{args.page}: written from the documents in {args.out}")
    if args.list or args.table is None:
        tables = list_tables(args.scale)
        lines = []
        for table in tables:
            images = table["training_images"]
            cost = f"; trains on {images:,} images" if images else ""
            rows = [
                row["name"] + ("" if row["paper"] is None else f" {row['paper']:g}") for row in table["rows"]
            ]
            lines += [
                f"{table['table']}: {table['title']} ({table['dataset']}, {table['metric']}{cost})",
                f"    {' | '.join(rows)}",
            ]
        lines.append("claims: sizes and speeds that the papers state (trains nothing)")
        return Answer(tables, "\n".join(lines))
    document = reproduce(
        args.table,
        args.scale,
        folder(args.out),
        data=args.data,
        root=args.root,
        seed=args.seed,
        seeds=args.seeds,
        say=lambda text: say("reproduce", text),
    )
    return Answer(document, markdown(document))


def run_datasets(args: argparse.Namespace) -> Answer:
    """The data sets that can be read, or a check of one's copy."""
    from handgraph.datasets import check, names

    if not args.words:
        splits = {name: list(parts) for name, parts in names().items()}
        return Answer(splits, "\n".join(f"{name}: {', '.join(parts)}" for name, parts in splits.items()))
    if len(args.words) != 3 or args.words[0] != "check":
        raise ConfigError(f"found '{' '.join(args.words)}', expected nothing (a list), or check NAME ROOT")
    result = check(args.words[1], args.words[2], None if args.all else DATASET_SAMPLES, args.out)
    lines = [f"{split}: {count} frames" for split, count in result["counts"].items()]
    if result["read"]:
        lines.append(f"read {result['read']} of them, {result['frames_per_s']:g} a second")
    lines += result["problems"] or ["nothing amiss"]
    if result.get("sheet"):
        lines.append(f"picture: {result['sheet']}")
    return Answer(result, "\n".join(lines), 2 if result["problems"] else 0)


class _Help(argparse.HelpFormatter):
    """argparse's, but for examples, which stay on one line: they are pasted into a shell."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example: ") else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            option = message.removeprefix("argument ").partition(":")[0]
            message += f"; one that begins with '-' is written {option}=-1"
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; files and overrides may also stand behind options, where argparse leaves them over."""
    parser = _parser()
    args, left = parser.parse_known_args(arguments)
    unknown = [word for word in left if word.startswith("-")]
    more = {
        "predict": "files",
        "personalize": "files",
        "train": "overrides",
        "score": "predictions",
    }.get(args.command)
    if unknown or (left and more is None):
        own = f"{parser.prog} {args.command}"
        parser.exit(2, f"{own}: unknown argument {(unknown or left)[0]!r} (see {own} --help)\n")
    if more is not None:
        setattr(args, more, [*getattr(args, more), *left])
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="handgraph",
        description="Hands in depth frames and photographs: find them, train and measure what finds them.",
        epilog="example: handgraph predict frame.png --camera 588.03,587.07,320,240 --out result",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], Answer], example: str
    ) -> argparse.ArgumentParser:
        summary = (run.__doc__ or "").split("\n")[0]
        added: argparse.ArgumentParser = commands.add_parser(
            name, help=summary, description=summary, epilog=f"example: handgraph {example}"
        )
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="print one JSON document, nothing else")
        return added

    command("models", run_models, "models --json")

    predict = command("predict", run_predict, "predict frame.png --camera 588.03,587.07,320,240 --out result")
    predict.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="photograph (JPEG, PNG, WebP, BMP), or depth frame: 16-bit PNG in mm, .npy or .npz in mm, NYU's "
        "RGB PNG, MSRA's .bin; a folder or 'pattern' of them; a video",
    )
    _model_options(predict)
    predict.add_argument("--camera", metavar="FX,FY,CX,CY", help="focal lengths and principal point, pixels")
    predict.add_argument("--box", metavar="X,Y,W,H", help="look for the hand only here, pixels")
    predict.add_argument(
        "--side", choices=("left", "right"), help="which hand it is (depth: right unless told; photos: tried)"
    )
    predict.add_argument(
        "--hands",
        type=whole_number,
        metavar="N",
        help="most hands in a picture (depth: 1 unless told; photos: all)",
    )
    predict.add_argument(
        "--depth-scale", type=above_zero, metavar="MM", help="millimetres a unit of the file (metres: 1000)"
    )
    predict.add_argument("--subject", metavar="FILE", help="whose hand it is, as `personalize` wrote it")
    predict.add_argument(
        "--mesh", action="store_true", help="fit the hand model to the joints: vertices, pose and shape"
    )
    _optimise_option(predict)
    predict.add_argument(
        "--looks",
        type=whole_number,
        default=1,
        metavar="N",
        help="how often each hand is looked at, 1 to 5, a photo turned a little each time (depth: 1 to 4, by "
        "a quarter); the answers are averaged, surer and slower",
    )
    predict.add_argument(
        "--explain", action="store_true", help="draw hybrid_gcn's classes and relations (with --out)"
    )
    predict.add_argument("--out", metavar="DIR", help="write pictures, pages and the JSON here")
    predict.add_argument("--no-overlay", action="store_true", help="with --out: write no pictures or videos")
    predict.add_argument(
        "--format", choices=("json", "parquet"), default="json", help="with --out: write a table as well"
    )
    predict.add_argument("--resume", action="store_true", help="go on where the same command was interrupted")
    predict.add_argument(
        "--webcam", type=from_zero, metavar="N", help="this machine's camera N, until Ctrl-C"
    )
    predict.add_argument(
        "--fps", type=above_zero, help="take the pictures for the frames of a clip, so many a second"
    )
    predict.add_argument(
        "--every", type=whole_number, default=1, metavar="N", help="every N-th frame of a clip"
    )
    predict.add_argument("--start", type=seconds, default=0.0, metavar="S", help="of a clip, seconds")
    predict.add_argument("--end", type=seconds, metavar="S", help="of a clip, seconds")
    predict.add_argument(
        "--smooth", choices=SMOOTHING, default="none", help="steadier hands: live, or for recordings"
    )
    predict.add_argument(
        "--runtime",
        choices=("torch", "onnx"),
        default="torch",
        help="what runs the network; onnx starts faster and needs no PyTorch",
    )

    evaluate = command(
        "evaluate", run_evaluate, "evaluate --model jgr_p2o --data synthetic:test --samples 1000"
    )
    _model_options(evaluate)
    evaluate.add_argument(
        "--data",
        default="synthetic:test",
        metavar="NAME[:SPLIT]",
        help="synthetic, or a data set with --root",
    )
    _optimise_option(evaluate)
    evaluate.add_argument(
        "--looks",
        type=whole_number,
        default=1,
        metavar="N",
        help="depth: how often each crop is looked at, 1 to 4, by a quarter turn further each time; the "
        "answers are averaged",
    )
    evaluate.add_argument("--root", metavar="DIR", help="the folder that holds the data set")
    evaluate.add_argument(
        "--partial", action="store_true", help="the data set is there in part on purpose: take what is there"
    )
    evaluate.add_argument("--samples", type=whole_number, metavar="N", help="measure only the first N")
    evaluate.add_argument("--seed", type=from_zero, default=0, help="of the synthetic set")

    train = command("train", run_train, "train jgr_p2o_synthetic_small --out run data.samples=2000 --resume")
    train.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change a value of the recipe")
    train.add_argument("--out", required=True, metavar="RUN", help="folder for checkpoints and logs")
    train.add_argument("--resume", action="store_true", help="continue the run in that folder")

    person = command("personalize", run_personalize, "personalize a.png b.png c.png --out subject.json")
    person.add_argument("files", nargs="+", metavar="IMAGE", help="depth frames or photographs of one hand")
    _model_options(person)
    person.add_argument("--camera", metavar="FX,FY,CX,CY", help="focal lengths and principal point, pixels")
    person.add_argument("--side", choices=("left", "right"), help="which hand it is")
    person.add_argument("--depth-scale", type=above_zero, metavar="MM", help="millimetres a unit of the file")
    person.add_argument("--out", required=True, metavar="FILE", help="the subject file to write (JSON)")

    _convert_options(
        command(
            "convert", run_convert, "convert in.json out.csv --to rhd,m,opengl,root=wrist,quaternion_wxyz"
        )
    )

    repeated = command("reproduce", run_reproduce, "reproduce jgr:2 --scale tiny --out results")
    repeated.add_argument("table", nargs="?", metavar="PAPER:TABLE", help="such as jgr:2, hybrid:2, sia:5.1")
    repeated.add_argument("--list", action="store_true", help="name every table and figure, and its cost")
    repeated.add_argument(
        "--scale",
        choices=("tiny", "small", "paper"),
        default="small",
        help="minutes, hours, or as in the paper",
    )
    repeated.add_argument(
        "--data", metavar="NAME", help="data set of scale paper, instead of the table's own"
    )
    repeated.add_argument("--root", metavar="DIR", help="the folder that holds it")
    repeated.add_argument("--seed", type=from_zero, default=0, help="of weights and order of the images")
    repeated.add_argument(
        "--seeds", type=whole_number, default=1, metavar="N", help="train with N seeds from it on"
    )
    repeated.add_argument(
        "--page", metavar="FILE", help="train nothing: write all documents in --out as one page"
    )
    repeated.add_argument(
        "--out", default="results", metavar="DIR", help="runs, tables and pictures (results)"
    )

    served = command("serve", run_serve, "serve --port 8000")
    served.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)"
    )
    served.add_argument("--port", type=port, default=8000, help="0: any that is free (8000)")
    _model_options(served)
    served.add_argument(
        "--runtime", choices=("torch", "onnx"), default="torch", help="what runs the networks (torch)"
    )
    served.add_argument("--workers", type=whole_number, metavar="N", help="threads that look at pictures")
    served.add_argument(
        "--places", type=whole_number, default=32, metavar="N", help="requests taken on at once (32)"
    )
    served.add_argument(
        "--seconds", type=whole_number, default=60, metavar="S", help="longest a request may take (60)"
    )
    served.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this host name too",
    )

    exported = command("export", run_export, "export --model jgr_p2o --out jgr_p2o.onnx")
    _model_options(exported)
    exported.add_argument("--out", required=True, metavar="FILE.onnx", help="the file to write")

    synthesize = command("synthesize", run_synthesize, "synthesize hands -n 100 --seed 1")
    synthesize.add_argument("out", metavar="OUT", help="folder to write to")
    synthesize.add_argument("-n", type=whole_number, default=100, metavar="N", help="how many frames")
    synthesize.add_argument("--seed", type=from_zero, default=0, help="the same seed gives the same hands")
    synthesize.add_argument("--split", choices=("train", "validation", "test"), default="test")
    synthesize.add_argument(
        "--modality", choices=("depth", "rgb", "both"), default="depth", help="what to render"
    )

    score = command(
        "score", run_score, "score predictions.txt --truth nyu_labels.txt --dataset nyu --format uvd"
    )
    score.add_argument(
        "predictions",
        nargs="+",
        metavar="PREDICTIONS",
        help="text (.xz too) or .mat, one frame a line; FreiHAND's JSON; COCO results",
    )
    score.add_argument("--truth", required=True, metavar="FILE", help="the labels as they are published")
    score.add_argument(
        "--dataset", required=True, metavar="NAME", help="nyu, icvl, msra, freihand, ho3d or coco"
    )
    score.add_argument("--format", choices=("uvd", "xyz", "json"), help="of the predictions")
    score.add_argument("--plot", metavar="FILE.png", help="draw the curves of all files")
    score.add_argument("--table", choices=("md", "latex"), help="print a table of all files")

    datasets = command("datasets", run_datasets, "datasets check nyu /data/nyu")
    datasets.add_argument("words", nargs="*", metavar="check NAME ROOT", help="without: list the data sets")
    datasets.add_argument("--all", action="store_true", help="read every frame, not a sample")
    datasets.add_argument("--out", metavar="DIR", help="check: draw labelled frames on DIR/sheet.png")
    return parser


def _convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="IN",
        help="JSON, JSON Lines, CSV, Parquet, COCO, OpenPose (file or folder), BVH, glTF, OBJ, PLY",
    )
    parser.add_argument("target", metavar="OUT", help="the same; the suffix tells which, or --to")
    parser.add_argument(
        "--from",
        dest="from_",
        metavar="WORDS",
        help="what IN is, words with commas: format, joint order, mm|cm|m|px, opencv|opengl, absolute or "
        "root=JOINT, axis_angle|matrix|quaternion_wxyz|quaternion_xyzw|6d|pca=N, flat|mean, left|right",
    )
    parser.add_argument(
        "--to", metavar="WORDS", help="what OUT shall be, the same words; left, right or mirror turns sides"
    )
    for name, what in (
        ("order", "joint order of IN, where it does not say"),
        ("unit", "unit of IN's lengths"),
        ("axes", "axes of IN: opencv or opengl"),
        ("root", "what IN's joints are relative to: camera, wrist, …"),
        ("rotation", "representation of IN's pose"),
        ("zero", "what zeros are in IN's pose: flat or mean"),
        ("camera", "FX,FY,CX,CY of IN's pictures"),
        ("size", "WIDTH,HEIGHT of IN's pictures"),
    ):
        parser.add_argument(f"--{name}", metavar=name.upper(), help=what)
    parser.add_argument("--side", choices=("left", "right"), help="which hand IN's are")
    parser.add_argument("--fps", type=above_zero, metavar="N", help="frames a second of IN")
    parser.add_argument("--hand-length", type=above_zero, metavar="MM", help="of hands in hand lengths")
    parser.add_argument("--hand-model", metavar="FILE", help="MANO file that poses are of (the open hand)")
    parser.add_argument("--frame", type=from_zero, metavar="N", help="only this frame")
    parser.add_argument("--track", type=from_zero, metavar="N", help="only the hand with this number")
    parser.add_argument("--only", choices=("left", "right"), help="only hands of this side")
    parser.add_argument("--fit", action="store_true", help="fit the hand model to joints without a pose")
    parser.add_argument("--hold", action="store_true", help="BVH: repeat the frame before a missing one")
    parser.add_argument("--lossy", action="store_true", help="allow few principal poses")


def _optimise_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--optimise",
        action=argparse.BooleanOptionalAction,
        help="lay the 3D hand on its 2D keypoints, where there is a camera (identity_mesh: unless told not "
        "to; hybrid_gcn: only if told), or the hand model on the surface in a depth frame (jgr_p2o: unless "
        "told not to, with weights trained on synthetic depth)",
    )


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="system whose shipped weights to use")
    parser.add_argument("--checkpoint", metavar="PATH", help="weights of your own, such as run/best")
