"""Stage 3 of the arrow: response texts -> Scores.

Every scorer here is a `lora_detox.types.Scorer`: one score per response, higher is better, with
the toxicity behind it. A scorer that cannot say raises ScorerError; nothing counts as clean.

Files: `contract` (what every scorer takes and keeps), `classifier` (a sequence classifier, the
usual reward and judge), `heads` (which output is civil; score and toxicity out of logits),
`loading` (checks before weights are read), `windows` (long texts), `functions` (any Python
function), `control_rewards` (functions that know nothing of tone), `terms` (ROUGE, length, common
words), `meaning` (similarity by an encoder, fluency), `composite` (scorers made of others: sums,
products, ensembles, signs), `word_list` (no classifier: plain
words), `prefixes` (which tokens it was), `probe` (is the sign right?),
`padding` (does a text score alone as in a batch?),
`training_data` (what classifiers learned from), `encoder` (how near a response is to its prompt:
no scorer, but found and loaded like one).
"""

from lora_detox.scores.classifier import ClassifierScorer
from lora_detox.scores.composite import (
    CompositeScorer,
    EnsembleScorer,
    ProductScorer,
    ScoreTerm,
    SignedScorer,
)
from lora_detox.scores.contract import check_scorer, score_prompts, toxicity_scorer
from lora_detox.scores.encoder import REWARD_KEYS, Encoder, check_encoder
from lora_detox.scores.functions import FunctionScorer
from lora_detox.scores.heads import ClassifierHead, civil_label_index
from lora_detox.scores.loading import check_classifier
from lora_detox.scores.meaning import (
    FluencyScorer,
    SimilarityScorer,
    check_fluency,
    probe_fluency,
)
from lora_detox.scores.padding import check_padding, warn_of_batch_effects
from lora_detox.scores.prefixes import prefix_credit
from lora_detox.scores.probe import ProbeResult, probe_scorer
from lora_detox.scores.terms import text_term
from lora_detox.scores.training_data import TrainingData, shared_training, training_data_of
from lora_detox.scores.word_list import WordListScorer

__all__ = [
    "REWARD_KEYS",
    "ClassifierHead",
    "ClassifierScorer",
    "CompositeScorer",
    "Encoder",
    "EnsembleScorer",
    "FluencyScorer",
    "FunctionScorer",
    "ProbeResult",
    "ProductScorer",
    "ScoreTerm",
    "SignedScorer",
    "SimilarityScorer",
    "TrainingData",
    "WordListScorer",
    "check_classifier",
    "check_encoder",
    "check_fluency",
    "check_padding",
    "check_scorer",
    "civil_label_index",
    "prefix_credit",
    "probe_fluency",
    "probe_scorer",
    "score_prompts",
    "shared_training",
    "text_term",
    "toxicity_scorer",
    "training_data_of",
    "warn_of_batch_effects",
]
