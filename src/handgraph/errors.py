"""The errors a user meets. Every message is one line: what was found, what was expected, what to do."""


class HandgraphError(Exception):
    """Base of all errors handgraph raises for a reason the user can mend."""


class InputError(HandgraphError):
    """An image, depth frame, box or camera that cannot be used."""


class FormatError(HandgraphError):
    """A file whose content is not what its format promises."""


class CheckpointError(HandgraphError):
    """Weights that are damaged, or that belong to another architecture."""


class ConfigError(HandgraphError):
    """A configuration, recipe or command-line value outside what is possible."""


class MissingExtraError(HandgraphError):
    """An optional dependency that this call needs is not installed."""
