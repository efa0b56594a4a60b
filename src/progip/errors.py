"""The one exception that stands for a user's mistake."""


class ProgipError(Exception):
    """A mistake in what the user gave: a key, a file, a layer, a folder.

    The message is one or two plain sentences: what is wrong, by name, and what to do. Entry points
    print it without a traceback and exit with a code other than 0. Anything else that is raised is
    a defect of this package and keeps its traceback.
    """
