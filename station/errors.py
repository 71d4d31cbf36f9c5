"""
What can go wrong, by what to do about it.

    StationError
    ├── ConfigError      the operator must change the configuration        exit 2
    ├── ModelError       the model file cannot be used                     exit 3
    ├── SourceError      the source is in trouble: run it again later
    │   └── CameraError  no picture can be had at the moment: a board that was asked for is UNKNOWN
    │       └── CameraUnfitError  nor will there be one as it is configured: no other program is the cause
    ├── PortError        a port to the line cannot be opened or was lost: open it again later
    ├── DetectorError    this one image cannot be judged: UNKNOWN, go on
    ├── PictureError     these bytes are not decoded: the text says what is wrong with them
    │   └── NoPictureError  they are no known kind of picture at all
    ├── GateError        the result may not have reached the line
    │   └── GateLateError  the line has its answer already: this one is not shown
    ├── LedgerError      nothing can be recorded: stop taking boards, try again
    │   ├── LedgerDamagedError  the next start sets it aside and saves what reads: restart    exit 1
    │   └── LedgerTooNewError   made by a newer station: the operator must decide    exit 1
    ├── LinkError        the broker cannot be reached as configured
    │   └── RefusedError  it answers, and does not let us in: trying again as we are does not help
    ├── CommandError     a command from outside is not understood, or not allowed
    ├── AccessError      a caller of the HTTP port is not who it says, or may not: the text says why
    │   └── ExpiredTokenError  its token was good, and its time is over
    ├── LabelsError      a folder of labelled boards cannot be used: the text names file and line
    └── BackupError      a backup cannot be made or restored: nothing was changed
"""


class StationError(Exception):
    """Raised when the station itself knows what is wrong; its text says what to do."""


class ConfigError(StationError):
    """Raised when the configuration is wrong: names the key, what was given, and what is accepted."""


class ModelError(StationError):
    """Raised when a model file is missing, damaged, or not a detector that the station can run."""


class SourceError(StationError):
    """Raised when a source is in trouble. The caller runs it again after a pause."""


class CameraError(SourceError):
    """Raised when the camera is away, silent, or shows the same picture for ever; says what to do."""


class CameraUnfitError(CameraError):
    """Raised when the camera, or this computer, cannot do what is configured, whoever else uses the camera."""


class PortError(StationError):
    """Raised when a serial port or the Modbus port cannot be had. The supervisor opens it again after a pause."""


class DetectorError(StationError):
    """Raised when an image cannot be judged. The board is UNKNOWN and the line goes on."""


class PictureError(StationError):
    """Raised when a file's bytes are cut off or damaged, show something else than a board, or have too many pixels."""


class NoPictureError(PictureError):
    """Raised when a file's bytes are no picture of a known kind."""


class GateError(StationError):
    """Raised when a result may not have reached the line."""


class GateLateError(GateError):
    """Raised when a board's answer was given in its place, because the result came too late."""


class LedgerError(StationError):
    """Raised when the ledger cannot be read or written. Nothing may be answered until it can."""


class LedgerDamagedError(LedgerError):
    """Raised when the ledger's file is damaged, or was taken away. A start repairs it; going on does not."""


class LedgerTooNewError(LedgerError):
    """Raised when the ledger was made by a newer station. It is left untouched."""


class LinkError(StationError):
    """Raised when a connection to the broker cannot be made as configured (a wrong CA file, an unreadable password)."""


class CommandError(StationError):
    """Raised when a command from outside cannot be carried out: the text goes back to who sent it."""


class AccessError(StationError):
    """Raised when a caller of the HTTP port is not let in."""


class ExpiredTokenError(AccessError):
    """Raised when a token was good, and its time is over: nobody has guessed."""


class RefusedError(LinkError):
    """Raised when the broker answers and does not let us in: somebody must mend the login, or the protocol."""


class LabelsError(StationError):
    """Raised when a folder of labelled boards (to judge a model with) is missing, damaged or not understood."""


class BackupError(StationError):
    """Raised when a backup cannot be made, or cannot be restored: then nothing was changed."""
