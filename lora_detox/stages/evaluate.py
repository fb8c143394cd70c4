"""stage=evaluate: measure any model or adapter on fixed prompts, without training.

Several models in one call are asked the same prompts with the same seeds, one after the other, and
make one table. Only generated text is scored.
"""

import gc
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lora_detox.builders.data import prompt_template
from lora_detox.builders.decoding import DecodingPlan
from lora_detox.builders.decoding_plan import plan_decoding
from lora_detox.builders.lengths import check_batch
from lora_detox.builders.scorers import check_scorers, load_encoder, load_scorers, load_word_list
from lora_detox.choices import Protocol, QuantizationType, TaskKind
from lora_detox.clock import Clock
from lora_detox.environment import in_multirun, prepare_process, process_facts
from lora_detox.evaluation.audit import AUDIT_FILE, audit_plan, audited
from lora_detox.evaluation.audited_models import audit_prompt_set, audit_summary, is_audited
from lora_detox.evaluation.evaluator import Evaluator
from lora_detox.evaluation.models import EvaluatedModel, evaluated_models, named_by_models
from lora_detox.evaluation.page import evaluation_sections
from lora_detox.evaluation.protocol import Numbers, PromptSet, prompt_sets, protocol_numbers
from lora_detox.evaluation.scorer_agreement import models_agreement
from lora_detox.evaluation.strengths import check_strengths, strengths_of
from lora_detox.evaluation.summary import Answers, evaluation_summary, sample_rows
from lora_detox.evaluation.table import evaluation_notes
from lora_detox.machine import resolve_device, slow_dtype_note
from lora_detox.metrics import names
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.families import Family, family_of
from lora_detox.policy.loading import load_policy
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import check_backbone, read_config
from lora_detox.policy.strength import at_strength
from lora_detox.policy.tokenizer import load_tokenizer
from lora_detox.processes import processes
from lora_detox.progress import phase
from lora_detox.prompts.batching import fixed_batches, repeat_prompts
from lora_detox.report.compare import write_comparison
from lora_detox.report.console import print_line
from lora_detox.report.jsonl import plain, write_json_atomic, write_rows, write_text_atomic
from lora_detox.report.tables import print_table
from lora_detox.scores import Encoder
from lora_detox.settings import Settings, settings_yaml
from lora_detox.types import PromptBatch, Scorer


def run(settings: Settings) -> tuple[float, ...]:
    """Evaluate each model on each set; print one table and write it down.

    Args:
        settings: composed and checked.

    Returns:
        Objectives of a sweep for the last model on the first set, both to minimise: toxicity (the
        judge's where there is one), and -ROUGE-L or perplexity.

    Raises:
        DetoxError: whatever is wrong with settings, data or models, before weights load.
    """
    prepare_process(settings.threads)
    clock, device = Clock(), resolve_device(settings.device)
    models, numbers = evaluated_models(settings), protocol_numbers(settings)
    asked = [(model, _decoding_of(model, settings)) for model in models]
    check_strengths(models, settings)
    if slow := slow_dtype_note(settings.policy.dtype.value, device):
        print_line(f"note     {slow}")
    check_scorers(settings)
    sets = prompt_sets(settings, numbers)
    audit = audit_plan(settings)
    for one in sets:
        print_line(f"data     {one.data.path}: {one.read}; {len(one.rows)} asked")
    if audit.prompts is not None:
        print_line(f"audit    {audit.prompts.name}: {audit.prompts.read}")
    audit_set = audit_prompt_set(settings, audit)
    for one_asked in asked:
        _check_lengths(settings, one_asked, [*sets, *audit_set], numbers)
    with phase("loading reward and judge"):
        reward, judge = load_scorers(settings, device)
        encoder = load_encoder(settings, device)
    results: list[Answers] = []
    for model, plan in asked:
        print_line(f"evaluating {model.name}")
        results += _answers(
            settings, (model, plan), (sets, audit_set), numbers, (reward, judge), clock, encoder
        )
    scorers = {"reward": reward.scorer_id} | ({"judge": judge.scorer_id} if judge else {})
    scorers |= {"encoder": encoder.encoder_id} if encoder else {}
    scorers |= {"word_list": words.scorer_id} if (words := load_word_list(settings)) else {}
    summary = {
        **evaluation_summary(settings, numbers, sets, results),
        **audit_summary(results, audit, (reward, judge)),
        "scorers": scorers,
        "processes": processes().size,
        "seconds": {"total": clock.elapsed(), **clock.total},
        **process_facts(device),
    }
    summary["scorer_agreement"] = models_agreement(summary["models"], settings)
    if processes().is_first:
        _write(settings, plain(summary), sets, results, keeps_answers=audit.keeps_answers)
    last = summary["models"][-1]["sets"]["in_distribution"]
    toxicity = last.get(names.JUDGE_TOXICITY) or last[names.TOXICITY]
    lost = last.get(names.PERPLEXITY)
    return (toxicity["mean"], -last.get(names.ROUGEL, 0.0) if lost is None else lost)


def _decoding_of(model: EvaluatedModel, settings: Settings) -> DecodingPlan:
    """What changes how a model writes, once its files are found to be whole."""
    backbone = model.backbone(settings)
    with named_by_models(model, settings):
        config = check_backbone(backbone, NO_ADAPTER)
    return plan_decoding(model.decoding, settings, backbone, config)


def _answers(
    settings: Settings,
    asked: tuple[EvaluatedModel, DecodingPlan],
    sets: tuple[list[PromptSet], list[PromptSet]],
    numbers: Numbers,
    scorers: tuple[Scorer, Scorer | None],
    clock: Clock,
    encoder: Encoder | None,
) -> list[Answers]:
    """What one model says to each set, at each strength; it is freed before the next is loaded."""
    model, plan = asked
    with phase(f"loading {model.name}"):
        policy = load_policy(model.backbone(settings), NO_ADAPTER)
    policy.dequantize = settings.quantization.dequantize_for_decoding
    evaluate = _evaluator(settings, policy, plan, numbers, (*scorers, encoder), clock)
    prompts = {}
    for one in sets[0]:
        batch = _encode(settings, one, policy.tokenizer, policy.family)
        prompts[one.role] = repeat_prompts(batch, numbers.samples).to(policy.device)
    audit_batches = [
        _encode(settings, one, policy.tokenizer, policy.family).to(policy.device) for one in sets[1]
    ]
    answers = []
    for strength in strengths_of(model, settings):
        where = "" if strength is None else f" at strength {strength:g}"
        with at_strength(policy, 1.0 if strength is None else strength):
            evaluations = {
                one.role: evaluate(prompts[one.role], f"evaluating on {one.name}{where}")
                for one in sets[0]
            }
            audits = [
                audited(evaluate, batch, f"auditing{where}")
                for batch in audit_batches
                if is_audited(strength, strengths_of(model, settings))
            ]
        answers.append(
            Answers(
                model=model,
                strength=strength,
                sets=evaluations,
                decoding=plan.facts(),
                audit=next(iter(audits), None),
            )
        )
    del policy, evaluate
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return answers


def _evaluator(
    settings: Settings,
    policy: LoraPolicy,
    plan: DecodingPlan,
    numbers: Numbers,
    scorers: tuple[Scorer, Scorer | None, Encoder | None],
    clock: Clock,
) -> Evaluator:
    """The evaluator of one model with its decoding."""
    rtp = settings.evaluation.protocol is Protocol.real_toxicity_prompts
    return Evaluator(
        policy=policy,
        reward=scorers[0],
        judge=scorers[1],
        sampling=numbers.sampling,
        generation={
            "response_tokens": numbers.response_tokens,
            "batch_size": settings.evaluation.batch_size,
        },
        batch_size=settings.algorithm.microbatch_size,
        seed=settings.evaluation.seed,
        perplexity=rtp or settings.task.kind is TaskKind.continuation,
        rewrites=settings.task.kind is TaskKind.rewriting,
        word_list=load_word_list(settings),
        quantized=settings.quantization.type is not QuantizationType.none,
        clock=clock,
        encoder=scorers[2],
        generate=plan.load(policy, scorers[0]),
    )


def _check_lengths(
    settings: Settings,
    asked: tuple[EvaluatedModel, DecodingPlan],
    sets: list[PromptSet],
    numbers: Numbers,
) -> None:
    """Prompts and responses fit one of the models, before any weight loads."""
    model, plan = asked
    backbone = model.backbone(settings)
    config = read_config(backbone)
    tokenizer = load_tokenizer(backbone, config)
    for one in sets:
        batch = _encode(settings, one, tokenizer, family_of(config))
        first = one.role == "in_distribution"
        check_batch(
            config,
            tokenizer,
            plan.asked(batch, tokenizer),
            numbers.response_tokens[1],
            query_key=f"{'data' if first else f'evaluation.sets.{one.role}'}.max_query_tokens"
            + plan.also_bounds,
            response_key="evaluation.new_tokens",
        )


def _encode(
    settings: Settings, one: PromptSet, tokenizer: PreTrainedTokenizerBase, family: Family
) -> PromptBatch:
    data = one.data
    (batch,) = fixed_batches(
        one.rows,
        tokenizer,
        template=prompt_template(settings, tokenizer),
        max_query_tokens=data.max_query_tokens,
        query_tokens=None
        if data.query_tokens is None
        else (data.query_tokens[0], data.query_tokens[1]),
        padding_side=family.padding_side,
        batch_size=len(one.rows),
        add_special_tokens=family.add_special_tokens,
    )
    return batch


def _write(
    settings: Settings,
    summary: dict[str, Any],
    sets: list[PromptSet],
    results: list[Answers],
    *,
    keeps_answers: bool,
) -> None:
    run_dir, rows = Path(settings.run_dir), sample_rows(results)
    sections = evaluation_sections(settings, summary, sets, rows)
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    write_rows(run_dir / "samples.jsonl", rows)
    if keeps_answers:
        write_rows(run_dir / AUDIT_FILE, sample_rows(results, audit=True))
    protocol = settings.evaluation.protocol.value
    write_comparison(
        run_dir / "report.html",
        title=f"Evaluation: {protocol}",
        about=f"lora_detox · evaluation by {protocol} · task {settings.task.name}",
        sections=sections,
        metrics=names.METRICS,
        settings_yaml=settings_yaml(settings),
    )
    write_json_atomic(run_dir / "summary.json", summary)  # last: a run with it is whole
    if not in_multirun():
        sentences = [sentence for one in sections for sentence in one.comparison["verdict"]]
        notes = evaluation_notes(summary, sets)
        print_table(sections[0].tables[0], [*sentences, *notes], run_dir)
