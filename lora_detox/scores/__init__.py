"""Stage 3 of the arrow: response texts -> Scores.

Every scorer here is a `lora_detox.types.Scorer`: one score per response, higher is better, with
the toxicity behind it. A scorer that cannot say raises ScorerError; nothing counts as clean.

Files: `classifier` (a sequence classifier, the usual reward and judge), `labels` (which output is
the civil one), `heads` (score and toxicity out of logits), `loading` (checks before weights are
read), `windows` (long texts), `functions` (any Python function), `composite` (weighted sums),
`terms` (ROUGE, length, similarity, ensembles),
`prefixes` (which tokens it was), `probe` (is the sign right?), `contract` (what every scorer has to
keep).
"""

from lora_detox.scores.classifier import ClassifierScorer
from lora_detox.scores.columns import score_prompts
from lora_detox.scores.composite import CompositeScorer, ScoreTerm
from lora_detox.scores.contract import check_scorer
from lora_detox.scores.functions import FunctionScorer
from lora_detox.scores.heads import ClassifierHead
from lora_detox.scores.labels import civil_label_index
from lora_detox.scores.loading import check_classifier
from lora_detox.scores.prefixes import prefix_credit
from lora_detox.scores.probe import ProbeResult, probe_scorer
from lora_detox.scores.terms import EnsembleScorer, SignedScorer, text_term

__all__ = [
    "ClassifierHead",
    "ClassifierScorer",
    "CompositeScorer",
    "EnsembleScorer",
    "FunctionScorer",
    "ProbeResult",
    "ScoreTerm",
    "SignedScorer",
    "check_classifier",
    "check_scorer",
    "civil_label_index",
    "prefix_credit",
    "probe_scorer",
    "score_prompts",
    "text_term",
]
