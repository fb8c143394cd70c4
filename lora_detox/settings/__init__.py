"""The schema of conf/: what can be set, of which type, and which combinations cannot work."""

from lora_detox.settings.algorithm import AlgorithmSettings, TrainerSettings
from lora_detox.settings.budget import BudgetSettings, GuardSettings
from lora_detox.settings.checks import check_settings
from lora_detox.settings.compose import (
    closest_keys,
    known_keys,
    register_schema,
    settings_from,
)
from lora_detox.settings.decoding import DecodingSettings, entry_decoding, parameters
from lora_detox.settings.groups import (
    AdapterSettings,
    CheckpointSettings,
    DataSettings,
    DebugSettings,
    EvaluationSettings,
    FieldSettings,
    GenerationSettings,
    PlanSettings,
    PolicySettings,
    QuantizationSettings,
    ScorerSettings,
    Settings,
    TaskSettings,
    TermSettings,
    TrackerSettings,
)
from lora_detox.settings.plain import flat, settings_yaml
from lora_detox.settings.preflight import check_export
from lora_detox.settings.probe_texts import probe_texts
from lora_detox.settings.renamed import RENAMED, renamed
from lora_detox.settings.stages import (
    ChatSettings,
    ExportSettings,
    RewardModelSettings,
    SftSettings,
)

__all__ = [
    "RENAMED",
    "AdapterSettings",
    "AlgorithmSettings",
    "BudgetSettings",
    "ChatSettings",
    "CheckpointSettings",
    "DataSettings",
    "DebugSettings",
    "DecodingSettings",
    "EvaluationSettings",
    "ExportSettings",
    "FieldSettings",
    "GenerationSettings",
    "GuardSettings",
    "PlanSettings",
    "PolicySettings",
    "QuantizationSettings",
    "RewardModelSettings",
    "ScorerSettings",
    "Settings",
    "SftSettings",
    "TaskSettings",
    "TermSettings",
    "TrackerSettings",
    "TrainerSettings",
    "check_export",
    "check_settings",
    "closest_keys",
    "entry_decoding",
    "flat",
    "known_keys",
    "parameters",
    "probe_texts",
    "register_schema",
    "renamed",
    "settings_from",
    "settings_yaml",
]
