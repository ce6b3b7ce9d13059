"""The results of commands as dataclasses.

Shapes are in GGUF order (columns first), sizes in bytes, times in seconds. A field that is not always there is None
where it is not. ``json`` is the object that --json prints.
"""

from quantcli.api.results.base import Result as Result
from quantcli.api.results.measurements import CalibrateResult as CalibrateResult
from quantcli.api.results.measurements import ComparedModel as ComparedModel
from quantcli.api.results.measurements import CompareResult as CompareResult
from quantcli.api.results.measurements import Difference as Difference
from quantcli.api.results.measurements import Divergence as Divergence
from quantcli.api.results.measurements import EmbeddedLine as EmbeddedLine
from quantcli.api.results.measurements import EmbedResult as EmbedResult
from quantcli.api.results.measurements import GenerateResult as GenerateResult
from quantcli.api.results.measurements import ImatrixResult as ImatrixResult
from quantcli.api.results.measurements import MeanError as MeanError
from quantcli.api.results.measurements import PerplexityRatio as PerplexityRatio
from quantcli.api.results.measurements import PerplexityResult as PerplexityResult
from quantcli.api.results.measurements import RecordedReference as RecordedReference
from quantcli.api.results.measurements import RecordError as RecordError
from quantcli.api.results.measurements import RunnerModel as RunnerModel
from quantcli.api.results.plans import AnalyzedTensor as AnalyzedTensor
from quantcli.api.results.plans import AnalyzeResult as AnalyzeResult
from quantcli.api.results.plans import PlannedTensor as PlannedTensor
from quantcli.api.results.plans import PlanningResult as PlanningResult
from quantcli.api.results.reported import Report as Report
from quantcli.api.results.reported import ReportedFile as ReportedFile
from quantcli.api.results.reported import ReportedOutput as ReportedOutput
from quantcli.api.results.reported import ReportedPart as ReportedPart
from quantcli.api.results.reported import ReportedTensor as ReportedTensor
from quantcli.api.results.results import CarriedTensor as CarriedTensor
from quantcli.api.results.results import CheckedFile as CheckedFile
from quantcli.api.results.results import CheckpointResult as CheckpointResult
from quantcli.api.results.results import CheckResult as CheckResult
from quantcli.api.results.results import CheckStep as CheckStep
from quantcli.api.results.results import CompensatedTensor as CompensatedTensor
from quantcli.api.results.results import ConvertResult as ConvertResult
from quantcli.api.results.results import EntryResult as EntryResult
from quantcli.api.results.results import FallbackResult as FallbackResult
from quantcli.api.results.results import FormatsResult as FormatsResult
from quantcli.api.results.results import GgufResult as GgufResult
from quantcli.api.results.results import GraftedTensor as GraftedTensor
from quantcli.api.results.results import GraftResult as GraftResult
from quantcli.api.results.results import MatrixResult as MatrixResult
from quantcli.api.results.results import MetadataResult as MetadataResult
from quantcli.api.results.results import OriginResult as OriginResult
from quantcli.api.results.results import OutputResult as OutputResult
from quantcli.api.results.results import RecipeResult as RecipeResult
from quantcli.api.results.results import ShardResult as ShardResult
from quantcli.api.results.results import SourceResult as SourceResult
from quantcli.api.results.results import TakenOver as TakenOver
from quantcli.api.results.results import TensorResult as TensorResult
from quantcli.api.results.results import TypeResult as TypeResult
from quantcli.api.results.results import TypeSummary as TypeSummary
from quantcli.api.results.results import VerifyResult as VerifyResult
from quantcli.api.results.schemas import ErrorDetails as ErrorDetails
from quantcli.api.results.schemas import ErrorResult as ErrorResult
