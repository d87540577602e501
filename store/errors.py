"""Exceptions that cross the border of the store. Their text is shown to people as it is."""


class UserError(Exception):
    """Something the operator can mend: one clear sentence that says what to do. The command line exits with 2."""


class SettingsError(UserError):
    """A setting is wrong; the text names its path."""


class Conflict(UserError):
    """The thing already exists, or was changed by somebody else meanwhile."""


class PreconditionFailed(UserError):
    """The thing is not what the editor saw any more: read it again, then change it."""


class NotFound(UserError):
    """No such thing."""


class Rehearsed(Exception):
    """A change went through every check and was taken back, because it was only rehearsed. Not a failure."""


class StoreUnavailable(Exception):
    """The database cannot be read or written now. Calls under a hard cap are refused while this lasts."""
