"""The state of incremental decoding."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Cache:
    """Keys, values and other state that a decoder stores between two steps.

    There are N = B x `beams` rows, with the beams of a study adjacent. Keys and values of the image are stored once per
    study and shared by its beams. Those of the text are also stored once per study and never moved: position p of beam
    j is in slot p * beams + j, and `lineage` marks the slots that belong to each row's text. Reordering the beams then
    moves a few booleans instead of all keys and values. The positions before the beams split (`widen`), which are the
    prompt and the begin token, come first, with one slot each.

    Rows that are never reordered, such as samples of a study, are stored `apart` instead: each has its own keys and
    values.

    Attributes:
        beams: number of rows per study.
        length: number of written decoder positions, including the prompt.
        memory_keys: keys (B, heads, S, d) of the memory for each layer, computed once.
        memory_values: values of the memory, in the same form.
        memory_mask: (B, 1, 1, S) bool, True for valid positions; None if all are valid.
        keys: keys (B, heads, room, d) of the text for each layer, of which the first `slots` are written; for rows that
            are apart, (N, heads, room, d).
        values: values of the text, in the same form.
        lineage: (B, beams, slots) bool, True where a slot belongs to the row's own text; None before the first
            position, and always for a single beam.
        state: other data that grows with the text, (N, ...) each, such as a running context.
        shared: data that all studies share, which is neither reordered nor selected.
        common: number of positions before the beams split.
        apart: whether each row has its own keys and values.
        reserved: expected total number of positions, for which memory is allocated in advance.
    """

    beams: int
    length: int
    memory_keys: list[Tensor]
    memory_values: list[Tensor]
    memory_mask: Tensor | None
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    lineage: Tensor | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)
    common: int = 0
    apart: bool = False
    reserved: int = 0

    @property
    def mixed(self) -> int:
        """Number of rows that share one set of slots: the beams of a study, or 1 if rows are apart."""
        return 1 if self.apart else self.beams

    @property
    def slots(self) -> int:
        """Number of slots of the positions so far, in every layer."""
        return self.slots_of(self.length)

    def slots_of(self, length: int) -> int:
        """Return the number of slots for a number of positions."""
        return min(length, self.common) + max(0, length - self.common) * self.mixed

    def widen(self, beams: int, *, apart: bool = False) -> None:
        """Split the single row of each study into `beams` rows that continue its text.

        Args:
            beams: number of rows per study.
            apart: whether the rows are never reordered (`reorder`). Each then gets a copy of the keys and values so
                far; otherwise, only `state` is copied.
        """
        assert self.beams == 1
        if beams == 1:
            return
        if apart:
            self.apart = True
            self.keys = [_widened(key, beams, self.length, self.reserved) for key in self.keys]
            self.values = [_widened(value, beams, self.length, self.reserved) for value in self.values]
        elif self.keys:
            self.lineage = torch.ones(1, beams, self.length, dtype=torch.bool, device=self.keys[0].device)
        self.beams, self.common = beams, self.length
        self.state = {name: value.repeat_interleave(beams, dim=0) for name, value in self.state.items()}

    def extend(self, positions: int, device: torch.device) -> Tensor | None:
        """Add `positions` positions to every row, which the layers then `write`.

        Returns:
            The mask of the new positions: bool, broadcastable to (B, heads, beams * positions, slots), with query (j,
            t) at j * positions + t; None if they may attend everywhere.
        """
        past = self.length
        self.length += positions
        if self.mixed == 1:
            if positions == 1:
                return None
            return torch.ones(positions, self.length, dtype=torch.bool, device=device).tril(past)
        own = torch.eye(self.beams, dtype=torch.bool, device=device)
        if self.lineage is None:
            self.lineage = own.new_empty(1, self.beams, 0)
        studies = self.lineage.shape[0]
        added = own[None, :, None, :].expand(studies, self.beams, positions, self.beams).flatten(2)
        before, self.lineage = self.lineage, torch.cat([self.lineage, added], dim=2)
        if positions == 1:
            return self.lineage[:, None]
        order = torch.ones(positions, positions, dtype=torch.bool, device=device).tril()
        inside = (own[:, None, None, :] & order[None, :, :, None]).flatten(2)
        visible = torch.cat(
            [
                before[:, :, None].expand(-1, -1, positions, -1),
                inside[None].expand(studies, -1, -1, -1),
            ],
            dim=3,
        )
        return visible.flatten(1, 2)[:, None]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's keys and values of the positions that `extend` added.

        Args:
            layer: index of the layer.
            key: keys (B, heads, positions * beams, d), with beam j of position t at t * beams + j; for rows that are
                apart, (N, heads, positions, d).
            value: values, in the same form.

        Returns:
            Keys and values of everything written so far, (B or N, heads, slots, d) each.
        """
        end = self.slots
        first = end - key.shape[2]
        if layer == len(self.keys):
            room = max(end, self.slots_of(self.reserved), 16 * self.mixed)
            self.keys.append(_buffer(key, room))
            self.values.append(_buffer(value, room))
        elif end > self.keys[layer].shape[2]:
            room = max(2 * end, self.slots_of(self.reserved))
            self.keys[layer] = _grown(self.keys[layer], first, room)
            self.values[layer] = _grown(self.values[layer], first, room)
        self.keys[layer][:, :, first:end] = key
        self.values[layer][:, :, first:end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def reorder(self, index: Tensor) -> None:
        """Make row i continue the text of row `index[i]` of its study; (N,) int64; not for rows that are apart."""
        assert not self.apart
        if self.lineage is not None:
            slots = self.lineage.shape[2]
            rows = self.lineage.expand(index.shape[0] // self.beams, -1, -1).reshape(-1, slots)
            self.lineage = rows.index_select(0, index).view(-1, self.beams, slots)
        self.state = {name: value.index_select(0, index) for name, value in self.state.items()}

    def select(self, studies: Tensor) -> None:
        """Drop all studies except `studies`, (B',) int64."""
        self.memory_keys = [key.index_select(0, studies) for key in self.memory_keys]
        self.memory_values = [value.index_select(0, studies) for value in self.memory_values]
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask.index_select(0, studies)
        if self.lineage is not None and self.lineage.shape[0] > 1:
            self.lineage = self.lineage.index_select(0, studies)
        rows = (studies[:, None] * self.beams + torch.arange(self.beams, device=studies.device)).flatten()
        self._keep_text(rows if self.apart else studies)
        self.state = {name: value.index_select(0, rows) for name, value in self.state.items()}

    def narrow(self, beams: Tensor) -> None:
        """Drop all rows of each study except `beams`, (B, K) int64 indices; only for rows that are apart."""
        assert self.apart
        first = torch.arange(len(beams), device=beams.device) * self.beams
        rows = (first[:, None] + beams).flatten()
        self._keep_text(rows)
        self.state = {name: value.index_select(0, rows) for name, value in self.state.items()}
        self.beams = beams.shape[1]

    def _keep_text(self, index: Tensor) -> None:
        """Select entries of the first axis of the text's keys and values, without shrinking the buffers."""
        self.keys = [_selected(key, index, self.slots) for key in self.keys]
        self.values = [_selected(value, index, self.slots) for value in self.values]


def _buffer(like: Tensor, slots: int) -> Tensor:
    return like.new_empty(*like.shape[:2], slots, like.shape[3])


def _selected(buffer: Tensor, index: Tensor, written: int) -> Tensor:
    kept = buffer.new_empty(len(index), *buffer.shape[1:])
    kept[:, :, :written] = buffer[:, :, :written].index_select(0, index)
    return kept


def _widened(buffer: Tensor, beams: int, written: int, reserved: int) -> Tensor:
    wide = buffer.new_empty(len(buffer) * beams, buffer.shape[1], max(buffer.shape[2], reserved), buffer.shape[3])
    wide[:, :, :written] = buffer[:, :, :written].repeat_interleave(beams, dim=0)
    return wide


def _grown(buffer: Tensor, written: int, slots: int) -> Tensor:
    larger = _buffer(buffer, slots)
    larger[:, :, :written] = buffer[:, :, :written]
    return larger
