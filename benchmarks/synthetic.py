"""Synthetic depth and colour crops a second, with their labels: one thread beside two, and whole frames.

    python benchmarks/synthetic.py --json

Everything is counted: shape, pose, skinning, raster, light, sensor, crop and labels, images and threads of
`DepthSynthesizer.batch` and `RgbSynthesizer.batch`.
The first call, which compiles or loads compiled code, is not.
"""

from _bench import arguments, interleaved_ms, machine, report

from handgraph.synthetic import DepthSynthesizer, RgbSynthesizer

BATCH = 256
COLOUR_BATCH = 48
FRAMES = 4


def main() -> None:
    options = arguments(__doc__ or "")
    repeats = max(1, round(7 * options.repeats))
    one, two = DepthSynthesizer(0), DepthSynthesizer(0, threads=2)
    clean = DepthSynthesizer(0, noise=False)
    colour = {
        size: (RgbSynthesizer(0, size=size), RgbSynthesizer(0, size=size, threads=2)) for size in (128, 256)
    }
    times = interleaved_ms(
        {
            "crops, 1 thread": lambda: one.batch(range(BATCH)),
            "crops, 2 threads": lambda: two.batch(range(BATCH)),
            "crops without noise, 1 thread": lambda: clean.batch(range(BATCH)),
            "whole frames, 1 thread": lambda: [one.frame(index) for index in range(FRAMES)],
            "colour crops 128x128, 1 thread": lambda: colour[128][0].batch(range(COLOUR_BATCH)),
            "colour crops 128x128, 2 threads": lambda: colour[128][1].batch(range(COLOUR_BATCH)),
            "colour crops 256x256, 2 threads": lambda: colour[256][1].batch(range(COLOUR_BATCH)),
            "whole colour frames, 1 thread": lambda: [colour[128][0].frame(i) for i in range(FRAMES)],
        },
        repeats,
    )
    rows = []
    for name, ms in times.items():
        count = FRAMES if name.startswith("whole") else COLOUR_BATCH if "colour" in name else BATCH
        rows.append(
            {
                "what": name,
                "images": count,
                "median_ms": ms["median"],
                "images_per_s": 1e3 * count / ms["median"],
                "best_images_per_s": 1e3 * count / ms["min"],
            }
        )
    ratio = times["crops, 1 thread"]["median"] / times["crops, 2 threads"]["median"]
    report(
        {"machine": machine(), "size": one.size, "repeats": repeats, "two_over_one": ratio, "rows": rows},
        options.json,
    )


if __name__ == "__main__":
    main()
