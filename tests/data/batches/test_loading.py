import pickle

import numpy as np
import pytest
import torch

from crossray.data.batches.loading import Collator, StudyLoader, report_key
from crossray.data.batches.sampler import StudySampler
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError


@pytest.fixture
def collator(noise_dataset, noise_tokenizer) -> Collator:
    return Collator(noise_dataset, noise_tokenizer, max_length=14)


def test_a_batch_holds_what_the_dataset_stores(collator, noise_dataset, noise_tokenizer):
    rows = [4, 0, 31, 17]
    batch = collator(rows)
    inputs = batch.inputs
    assert inputs.images.dtype == torch.uint8 and inputs.images.shape[:3] == (4, 2, 1)
    for study, row in enumerate(rows):
        views = noise_dataset.views(row)
        assert inputs.view_mask[study].tolist() == [True, len(views) > 1]
        for view, image_row in enumerate(views):
            stored = noise_dataset.image(image_row)
            height, width = inputs.image_size[study, view].tolist()
            assert (height, width) == stored.shape
            np.testing.assert_array_equal(inputs.images[study, view, 0, :height, :width].numpy(), stored)
            assert not inputs.images[study, view, 0, height:].any()
            assert not inputs.images[study, view, 0, :, width:].any()
            position = noise_dataset.record(row).positions[view]
            assert VIEW_POSITIONS[inputs.view_position[study, view]] == position
        report = noise_dataset.reports([row])[0]
        tokens = noise_tokenizer.encode(report, 14)
        mask = batch.targets.mask[study]
        assert batch.targets.tokens[study][mask].tolist() == tokens
        assert (batch.targets.tokens[study][~mask] == noise_tokenizer.pad_id).all()
    assert batch.guide.study == ("study-4", "study-0", "study-31", "study-17")
    assert batch.guide.patient == ("patient-2", "patient-0", "patient-15", "patient-8")


def test_missing_views_are_empty(collator):
    inputs = collator([0, 1]).inputs
    assert inputs.view_mask.tolist() == [[True, False], [True, True]]
    assert not inputs.images[0, 1].any()
    assert inputs.image_size[0, 1].tolist() == [0, 0] and inputs.view_position[0, 1] == 0


@pytest.mark.parametrize("views", [1, 3])
def test_number_of_views(noise_dataset, noise_tokenizer, views):
    inputs = Collator(noise_dataset, noise_tokenizer, views=views)([0, 1, 2]).inputs
    assert inputs.view_mask.shape == (3, views)
    assert inputs.view_mask.sum(1).tolist() == [min(views, count) for count in (1, 2, 2)]


def test_labels_are_one_hot_over_statuses(collator, noise_dataset):
    labels = collator([0, 1]).guide.labels
    assert noise_dataset.info.observations == ("cardiomegaly", "edema")
    assert labels.shape == (2, 2, 4)
    assert not labels[0].any()  # study 0 has no labels
    assert labels[1].argmax(-1).tolist() == [3, 1] and (labels[1].sum(-1) == 1).all()


def test_report_keys_are_equal_for_equal_cleaned_reports_only(collator, noise_dataset, noise_tokenizer):
    rows = np.arange(60)
    keys = collator(rows).targets.report_key.tolist()
    cleaned = [noise_tokenizer.clean(report) for report in noise_dataset.reports(rows)]
    for first in range(60):
        for second in range(60):
            assert (keys[first] == keys[second]) == (cleaned[first] == cleaned[second])
    assert report_key("the heart is normal .") == report_key("the heart is normal .")
    assert all(0 <= report_key(str(number)) < 2**63 for number in range(1000))


def test_report_key_is_the_same_on_every_machine():
    assert report_key("the heart is normal .") == 5861613947271703798  # b2sum -l 64, little-endian, halved


def test_without_a_tokenizer_there_are_no_tokens(noise_dataset, collator):
    targets = Collator(noise_dataset, None)([0, 1]).targets
    assert targets.tokens.shape == targets.mask.shape == (2, 0)
    assert torch.equal(targets.report_key, collator([0, 1]).targets.report_key)


def test_another_section(noise_dataset, noise_tokenizer):
    targets = Collator(noise_dataset, noise_tokenizer, section="impression")([4]).targets
    assert targets.tokens[0].tolist() == noise_tokenizer.encode("Impression 4.", 60)


def test_a_pickled_collator_builds_the_same_batch(collator):
    copy = pickle.loads(pickle.dumps(collator))
    assert torch.equal(copy([3, 4]).inputs.images, collator([3, 4]).inputs.images)
    assert torch.equal(copy([3, 4]).targets.tokens, collator([3, 4]).targets.tokens)


def test_views_must_be_positive(noise_dataset):
    with pytest.raises(UserError, match="views 0"):
        Collator(noise_dataset, None, views=0)


def loader(collator: Collator, **options: object) -> StudyLoader:
    workers = options.pop("workers", 0)
    return StudyLoader(collator, StudySampler(np.arange(60), 8, seed=3, **options), seed=5, workers=workers)


def seen(batches: object) -> list[tuple]:
    return [(batch.guide.study, batch.draws.numpy().tobytes(), batch.inputs.images.sum().item()) for batch in batches]


def test_every_study_once_an_epoch_in_an_order_of_its_own(collator):
    stream = loader(collator)
    epochs = []
    for epoch in range(3):
        stream.sampler.set_epoch(epoch)
        epochs.append(seen(stream))
        studies = [study for batch in epochs[-1] for study in batch[0]]
        assert sorted(studies) == sorted(f"study-{number}" for number in range(60))
    assert len({batches[0][0] for batches in epochs}) == len({batches[0][1] for batches in epochs}) == 3
    stream.sampler.set_epoch(1)
    assert seen(stream) == epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("position", [0, 3, 8])
def test_continues_in_the_middle_of_an_epoch(collator, workers, position):
    whole = loader(collator)
    whole.sampler.set_epoch(2)
    expected = seen(whole)

    first = loader(collator, workers=workers)
    first.sampler.set_epoch(2)
    batches = iter(first)
    for _ in range(position):
        next(batches)
    state = first.state_dict()
    assert state["position"] == position

    second = loader(collator, workers=workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    second.sampler.set_epoch(2)
    assert len(second) == 8
    assert seen(second) == expected[position:]
    # the epoch after is whole again
    second.sampler.set_epoch(3)
    whole.sampler.set_epoch(3)
    assert seen(second) == seen(whole)


def test_a_state_of_the_end_of_an_epoch_begins_the_next_one(collator):
    first = loader(collator)
    seen(first)
    second = loader(collator)
    second.load_state_dict(first.state_dict())
    second.sampler.set_epoch(1)
    assert second.state_dict()["position"] == 0
    assert len(seen(second)) == 8


def test_a_state_of_another_run_is_refused(collator):
    state = loader(collator).state_dict()
    with pytest.raises(UserError, match="'global_batch_size' was 99 and is now 8"):
        loader(collator).load_state_dict(state | {"global_batch_size": 99})


def test_loading_leaves_the_global_random_state_alone(collator):
    before = torch.get_rng_state()
    seen(loader(collator))
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_together_see_what_one_process_sees(collator):
    alone = StudyLoader(collator, StudySampler(np.arange(60), 8, seed=3), seed=5)
    shares = [
        StudyLoader(collator, StudySampler(np.arange(60), 4, seed=3, rank=rank, world_size=2), seed=5)
        for rank in range(2)
    ]
    assert len(shares[0]) == len(shares[1]) == len(alone)
    for whole, *parts in zip(alone, *shares, strict=True):
        assert whole.guide.study == sum((part.guide.study for part in parts), ())
        assert torch.equal(whole.draws, torch.cat([part.draws for part in parts]))


@pytest.mark.parametrize(
    ("count", "batch", "world"), [(60, 8, 1), (61, 4, 3), (7, 8, 2), (5, 1, 5), (60, 60, 1), (9, 1, 8), (3, 1, 2)]
)
def test_evaluation_sees_every_study_once_in_equally_many_batches(count, batch, world):
    samplers = [StudySampler(range(count), batch, shuffle=False, rank=rank, world_size=world) for rank in range(world)]
    plans = [list(sampler) for sampler in samplers]
    rows = [row for process in plans for plan in process for row in plan.rows.tolist()]
    assert sorted(rows) == list(range(count))
    assert len({len(process) for process in plans}) == 1
    # one more than a batch rather than a process without any
    most = batch + (count % (batch * world) < world and count > batch * world)
    assert all(0 < len(plan.rows) <= most for process in plans for plan in process)


def test_drop_last_leaves_out_what_is_not_full_but_never_everything():
    assert [len(plan.rows) for plan in StudySampler(range(21), 8)] == [8, 8, 5]
    assert [len(plan.rows) for plan in StudySampler(range(21), 8, drop_last=True)] == [8, 8]
    assert [len(plan.rows) for plan in StudySampler(range(5), 8, drop_last=True)] == [5]
    # one study left for two processes
    assert [len(plan.rows) for plan in StudySampler(range(9), 4, world_size=2)] == [4]


def test_impossible_samplers_are_refused():
    with pytest.raises(UserError, match="batch_size is 0"):
        StudySampler(range(5), 0)
    with pytest.raises(UserError, match="2 studies cannot be shared by 3"):
        StudySampler(range(2), 1, world_size=3)
