"""Every registered system: the search with its cache equals the search without."""

from dataclasses import replace

import pytest
import torch
from tests.decoding.toy import IDS
from tests.models.tiny import make_inputs, tiny

from crossray.decoding.sampling import sample
from crossray.decoding.search import DecodingConfig, generate
from crossray.decoding.uncached import Uncached
from crossray.models.registry import list_models
from crossray.models.revtaf import REVTAF


@pytest.mark.parametrize("prompted", [False, True], ids=["plain", "prompted"])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("system", list_models())
def test_cached_equals_uncached(system, beam, prompted):
    model = tiny(system)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():  # fresh weights hardly tell words apart; these end reports at many lengths
        if parameter.dim() > 1:
            parameter.data.mul_(1.0 + 2.0 * torch.rand(1, generator=generator).item())
    with torch.no_grad():
        encoded = model.encode(make_inputs(6))
    # small random models may write the same of every image; these studies differ by more
    encoded = replace(encoded, memory=encoded.memory * torch.linspace(0.2, 4, 6).view(6, 1, 1))
    if prompted:
        encoded = replace(encoded, prompt=torch.randint(4, 40, (6, 3), generator=generator))
    config = DecodingConfig(beam=beam, max_length=11, no_repeat_ngram=3)
    cached = generate(model, encoded, IDS, config, need_attention=True)
    uncached = generate(Uncached(model), encoded, IDS, config, need_attention=True)
    assert [report.tokens for report in cached] == [report.tokens for report in uncached]
    assert len({tuple(report.tokens) for report in cached}) > 1
    for ours, other in zip(cached, uncached, strict=True):
        assert ours.score == pytest.approx(other.score, abs=1e-3)
        assert ours.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-3)
        torch.testing.assert_close(ours.cross_attention, other.cross_attention)


def sharpen(model):
    """Make fresh weights tell words apart, and end reports early."""
    if isinstance(model, REVTAF):  # BERT's weights begin small
        for parameter in model.decoder.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
        model.decoder.bias[IDS.eos] += 2
    else:
        model.vocabulary.weight.mul_(4)
        model.vocabulary.bias[IDS.eos] += 4


@pytest.mark.parametrize("system", list_models())
def test_studies_that_end_leave_the_batch_and_the_cache(system):
    model = tiny(system)
    with torch.no_grad():
        encoded = model.encode(make_inputs(8))
        # a report ends soon or late depending on its image
        encoded = replace(encoded, memory=encoded.memory * torch.linspace(0.2, 4, 8).view(8, 1, 1))
        sharpen(model)
    config = DecodingConfig(max_length=11)
    bias = model.decoder.bias if isinstance(model, REVTAF) else model.vocabulary.bias
    for _ in range(60):
        together = generate(model, encoded, IDS, config)
        if len({len(report.log_probabilities) for report in together}) > 1:
            break
        with torch.no_grad():
            bias[IDS.eos] -= 0.1  # all ended at once
    assert len({len(report.log_probabilities) for report in together}) > 1
    alone = [generate(model, encoded.select(torch.tensor([study])), IDS, config)[0] for study in range(8)]
    assert [report.tokens for report in together] == [report.tokens for report in alone]


@pytest.mark.parametrize("prompted", [False, True], ids=["plain", "prompted"])
@pytest.mark.parametrize("system", list_models())
def test_several_texts_of_a_study_are_read_as_if_each_had_a_copy_of_it(system, prompted):
    model = tiny(system)
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(4, 40, (6, 7), generator=generator)
    with torch.no_grad():
        encoded = model.encode(make_inputs(2))
        if prompted:
            encoded = replace(encoded, prompt=torch.randint(4, 40, (2, 3), generator=generator))
        copies = encoded.apply(lambda tensor: tensor.repeat_interleave(3, dim=0))
        torch.testing.assert_close(model.step(tokens, encoded).logits, model.step(tokens, copies).logits)


@pytest.mark.parametrize("system", list_models())
def test_samples_are_those_of_a_search_for_each(system):
    """Whatever shares prompt, image and batch: each sample follows its own numbers, and leaves when it has ended."""
    model, count = tiny(system), 5
    with torch.no_grad():
        encoded = model.encode(make_inputs(3))
        sharpen(model)
    config = DecodingConfig(method="sample", max_length=11)
    together = sample(model, encoded, IDS, config, count, [3, 4, 5])
    plain = sample(Uncached(model), encoded, IDS, config, count, [3, 4, 5])
    assert torch.equal(together.tokens, plain.tokens)
    assert torch.equal(together.length, plain.length)
    torch.testing.assert_close(together.log_probabilities, plain.log_probabilities, atol=1e-3, rtol=1e-3)
    assert len(set(together.length.flatten().tolist())) > 1


@pytest.mark.parametrize("system", list_models())
def test_bf16_is_used_where_the_machine_has_it_and_changes_probabilities_by_rounding(system, monkeypatch):
    model = tiny(system)
    with torch.no_grad():
        encoded = model.encode(make_inputs(3))
        sharpen(model)
    beams = DecodingConfig(max_length=11, bf16=True)
    drawn = replace(beams, method="sample")

    def found():
        reports = generate(model, encoded, IDS, beams, need_attention=True)
        samples = sample(model, encoded, IDS, drawn, 4, [3, 4, 5])
        return (
            [(report.tokens, report.log_probabilities) for report in reports]
            + [
                (words[:length].tolist(), numbers[:length].tolist())
                for of_study in zip(samples.tokens, samples.length, samples.log_probabilities, strict=True)
                for words, length, numbers in zip(*of_study, strict=True)
            ]
        )  # fmt: skip

    monkeypatch.setattr("crossray.layers.packed.computes_bf16", lambda device: False)
    plain = found()
    beams, drawn = replace(beams, bf16=False), replace(drawn, bf16=False)
    assert found() == plain
    beams, drawn = replace(beams, bf16=True), replace(drawn, bf16=True)
    monkeypatch.setattr("crossray.layers.packed.computes_bf16", lambda device: True)
    rounded = found()
    assert rounded != plain
    for place, (words, numbers) in enumerate(rounded):
        study = encoded.select(torch.tensor([place if place < 3 else (place - 3) // 4]))
        read = torch.tensor([[IDS.bos, *words[: len(numbers) - 1]]])
        with torch.no_grad():
            exact = torch.log_softmax(model.step(read, study).logits[0], dim=-1)
        written = torch.tensor([*words, IDS.eos][: len(numbers)])[:, None]
        torch.testing.assert_close(torch.tensor(numbers), exact.gather(1, written)[:, 0], atol=0.1, rtol=0.03)
