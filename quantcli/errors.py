"""Every cause of failure as one class: a code that scripts can match, an exit status, a place and a hint.

An error reads as two lines: *what, where* and *what to do*. The command line prints them and exits with
``exit_status``; nothing else in the package formats errors for people. Imports nothing heavy.
"""

from __future__ import annotations


class QuantcliError(Exception):
    """Base of all expected failures.

    ``message`` says what is wrong, ``where`` names the place (file, tensor, row, byte), ``hint`` says what to do.
    ``row`` and ``column`` are set where a kernel found a bad weight: counted from the first row that it was given.
    """

    code = "error"
    exit_status = 1
    row = column = -1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(QuantcliError):
    """The command line itself is wrong: contradictory or malformed options."""

    code, exit_status = "usage", 2


class Interrupted(QuantcliError):
    """The user (or the system) asked to stop."""

    code, exit_status = "interrupted", 130


# ---- input files -----------------------------------------------------------------------------------------------


class MissingFile(QuantcliError):
    """A file that is needed does not exist or cannot be opened."""

    code = "missing-file"


class UnsafePath(QuantcliError):
    """A file name inside a checkpoint leaves the checkpoint's folder."""

    code = "unsafe-path"


class MalformedFile(QuantcliError):
    """The bytes of a file contradict its format (truncated, overlapping, out of limits)."""

    code = "malformed-file"


class GitLfsPointer(MalformedFile):
    """In place of a file there is the pointer that Git keeps where LFS did not fetch it."""

    code = "git-lfs-pointer"


class UnsupportedFile(QuantcliError):
    """The file is well-formed but of a kind, version or data type that quantcli does not read."""

    code = "unsupported-file"


class SourceChanged(QuantcliError):
    """A file of the source changed between being opened and the end of the work."""

    code = "source-changed"


class Unreachable(QuantcliError):
    """A server does not answer, or the client was told not to ask it."""

    code = "unreachable"


class NoAccess(QuantcliError):
    """A server refuses: no token, one that it does not know, or one without the right to read or write there."""

    code = "no-access"


class BadAnswer(QuantcliError):
    """What a server sends contradicts what it announced: a length, a range, a hash."""

    code = "bad-answer"


class PickleCheckpoint(UnsupportedFile):
    """Only ``pytorch_model.bin`` is there: a pickle runs code when it is read."""

    code = "pickle-checkpoint"


class QuantizedSource(QuantcliError):
    """The source is already quantized and the user did not accept the double loss."""

    code = "quantized-source"


# ---- model description -----------------------------------------------------------------------------------------


class BadConfig(QuantcliError):
    """config.json lacks a field or holds an absurd value."""

    code = "bad-config"


class UnsupportedConfig(QuantcliError):
    """config.json says something about the computation that the GGUF architecture has no place for."""

    code = "unsupported-config"


class UnknownArchitecture(QuantcliError):
    """No family declares this architecture."""

    code = "unknown-architecture"


class UnknownTensors(QuantcliError):
    """The checkpoint holds tensors that the family does not know."""

    code = "unknown-tensors"


class MissingTensors(QuantcliError):
    """The family expects tensors that the checkpoint lacks."""

    code = "missing-tensors"


class ShapeMismatch(QuantcliError):
    """A tensor's shape contradicts config.json or the other tensors."""

    code = "shape-mismatch"


class BadTokenizer(QuantcliError):
    """The tokenizer files are missing, contradictory or of an unknown kind."""

    code = "bad-tokenizer"


class UnknownPreTokenizer(BadTokenizer):
    """The structure of a BPE pre-tokenizer matches no name that llama.cpp knows."""

    code = "unknown-pre-tokenizer"


class MetadataMismatch(QuantcliError):
    """Two models that are put together say different things about how they compute."""

    code = "metadata-mismatch"


# ---- plan, importance, encoding --------------------------------------------------------------------------------


class UnknownType(UsageError):
    """A type or file type name that does not exist."""

    code = "unknown-type"


class BadOverride(QuantcliError):
    """A --tensor-type pattern or file that cannot be used."""

    code = "bad-override"


class NoKernel(QuantcliError):
    """The type is known (it plans and inspects) but this build cannot encode or decode it."""

    code = "no-kernel"


class IndivisibleRow(QuantcliError):
    """A row length is no multiple of the type's block and no fallback exists."""

    code = "indivisible-row"


class ImportanceNeeded(QuantcliError):
    """The plan holds types that need an importance matrix."""

    code = "importance-needed"


class BadImportance(QuantcliError):
    """An importance file is malformed or does not fit the model."""

    code = "bad-importance"


class BadStatistics(QuantcliError):
    """A folder of statistics is damaged, or of another model, text or run."""

    code = "bad-statistics"


class UnsupportedTransform(QuantcliError):
    """A rewrite of a model is not exact, or not possible, for its architecture."""

    code = "unsupported-transform"


class NonFiniteWeight(QuantcliError):
    """A weight is NaN or infinite."""

    code = "non-finite-weight"


class ScaleOverflow(QuantcliError):
    """A block scale (or an F16 weight) is too large for half precision."""

    code = "scale-overflow"


class UnsupportedInstructionSet(QuantcliError):
    """QUANTCLI_SIMD names an instruction set that this CPU or this build lacks."""

    code = "unsupported-instruction-set"


class BrokenInstall(QuantcliError):
    """The kernel library is missing or does not fit the Python part."""

    code = "broken-install"


class TargetTooSmall(QuantcliError):
    """No choice of types fits a size, or comes as near to the model as was asked for."""

    code = "target-too-small"


# ---- running a model -------------------------------------------------------------------------------------------


class UnsupportedGraph(QuantcliError):
    """The model computes something that the runner lacks."""

    code = "unsupported-graph"


class ContextTooLong(QuantcliError):
    """More positions are asked for than the model was trained with."""

    code = "context-too-long"


class ShortText(QuantcliError):
    """The text is empty or has too few tokens for what is to be measured."""

    code = "short-text"


class VocabularyMismatch(QuantcliError):
    """Two models that are compared (or a model and recorded tokens) do not share their vocabulary."""

    code = "vocabulary-mismatch"


class NonFiniteResult(QuantcliError):
    """A layer or a figure is NaN or infinite: weights or metadata are damaged, or activations overflow."""

    code = "non-finite-result"


class BadReference(QuantcliError):
    """A file of recorded probabilities is malformed or does not fit the model."""

    code = "bad-reference"


class BadStates(QuantcliError):
    """A folder of hidden states (`--layerwise`) is of another run, unfinished, in use, or damaged."""

    code = "bad-states"


class EngineFailed(QuantcliError):
    """The scheduler or the workers of --engine are not there, get lost, or are not like this machine."""

    code = "engine-failed"


class MissingPackage(QuantcliError):
    """A package that this option needs is not installed."""

    code = "missing-package"


class WarningsRefused(QuantcliError):
    """--strict: what would have been a warning."""

    code = "warning"


# ---- output ----------------------------------------------------------------------------------------------------


class OutputExists(QuantcliError):
    """The output is already there and --force was not given."""

    code = "output-exists"


class OutputIsInput(QuantcliError):
    """The output would overwrite a file that is being read."""

    code = "output-is-input"


class OutputFailed(QuantcliError):
    """The output cannot be written: folder missing, no permission, disk full."""

    code = "output-failed"


class ResumeRefused(QuantcliError):
    """What an earlier run has left is of another source, plan or version, or another run is at work on it."""

    code = "resume-refused"


class VerificationFailed(QuantcliError):
    """`verify` found something wrong."""

    code = "verification-failed"
