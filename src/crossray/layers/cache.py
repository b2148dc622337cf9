"""State of a decoder that writes word by word."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Cache:
    """All that a decoder keeps between two steps.

    N rows = B studies x `beams`, the beams of one study adjacent. What belongs to the image is held once per study and
    shared by its beams. What grows with the text is held once per study too, and never moved: position p of beam j lies
    in slot p * beams + j, and `lineage` says which slots a row descends from. Changing the order of the beams then
    moves a few booleans instead of every key and value. What is written before the beams part (`widen`), a prompt and
    the begin token, has one slot a position, behind which these slots begin.

    Attributes:
        beams: rows per study.
        length: decoder positions already written, the prompt included.
        memory_keys: one (B, heads, S, d) a layer, computed once.
        memory_values: the same for the values.
        memory_mask: (B, 1, 1, S) bool, True where attention may look; None when every position is valid.
        keys: one (B, heads, room, d) a layer; only the first `slots` are written.
        values: the same for the values.
        lineage: (B, beams, slots) bool, True where a slot belongs to the row's own text; None before the first
            position, and always with one beam, whose every slot is its own.
        state: anything else that grows with the text, (N, ...) each: a running context, for example.
        shared: anything that all studies have in common; neither reordered nor selected.
        common: positions that were written before the beams parted.
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

    @property
    def slots(self) -> int:
        """Slots that the positions so far take, in every layer."""
        return self.common + (self.length - self.common) * self.beams

    def widen(self, beams: int) -> None:
        """Let `beams` rows of each study continue the one that was read so far; nothing is copied but `state`."""
        assert self.beams == 1
        if beams == 1:
            return
        if self.keys:
            self.lineage = torch.ones(1, beams, self.length, dtype=torch.bool, device=self.keys[0].device)
        self.beams, self.common = beams, self.length
        self.state = {name: value.repeat_interleave(beams, dim=0) for name, value in self.state.items()}

    def extend(self, positions: int, device: torch.device) -> Tensor | None:
        """Make room for `positions` more in every row; layers then `write` them.

        Returns:
            Where each of the new positions may look: bool, broadcastable to (B, heads, beams * positions, slots),
            query (j, t) at j * positions + t; None when it may look everywhere.
        """
        past = self.length
        self.length += positions
        if self.beams == 1:
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
        """Store a layer's keys and values of the positions that `extend` made room for.

        Args:
            layer: index of the layer.
            key: (B, heads, positions * beams, d), beam j of position t at t * beams + j.
            value: the same for the values.

        Returns:
            Keys and values of everything written so far, (B, heads, slots, d) each.
        """
        end = self.slots
        first = end - key.shape[2]
        if layer == len(self.keys):
            self.keys.append(_buffer(key, max(end, 16 * self.beams)))
            self.values.append(_buffer(value, max(end, 16 * self.beams)))
        elif end > self.keys[layer].shape[2]:
            self.keys[layer] = _grown(self.keys[layer], first, 2 * end)
            self.values[layer] = _grown(self.values[layer], first, 2 * end)
        self.keys[layer][:, :, first:end] = key
        self.values[layer][:, :, first:end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def reorder(self, index: Tensor) -> None:
        """Row i continues what row `index[i]` has written: (N,) int64, within one study."""
        if self.lineage is not None:
            slots = self.lineage.shape[2]
            rows = self.lineage.expand(index.shape[0] // self.beams, -1, -1).reshape(-1, slots)
            self.lineage = rows.index_select(0, index).view(-1, self.beams, slots)
        self.state = {name: value.index_select(0, index) for name, value in self.state.items()}

    def select(self, studies: Tensor) -> None:
        """Keep only these studies, (B',) int64: finished ones leave the batch."""
        self.memory_keys = [key.index_select(0, studies) for key in self.memory_keys]
        self.memory_values = [value.index_select(0, studies) for value in self.memory_values]
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask.index_select(0, studies)
        self.keys = [key.index_select(0, studies) for key in self.keys]
        self.values = [value.index_select(0, studies) for value in self.values]
        if self.lineage is not None and self.lineage.shape[0] > 1:
            self.lineage = self.lineage.index_select(0, studies)
        rows = (studies[:, None] * self.beams + torch.arange(self.beams, device=studies.device)).flatten()
        self.state = {name: value.index_select(0, rows) for name, value in self.state.items()}


def _buffer(like: Tensor, slots: int) -> Tensor:
    return like.new_empty(*like.shape[:2], slots, like.shape[3])


def _grown(buffer: Tensor, written: int, slots: int) -> Tensor:
    larger = _buffer(buffer, slots)
    larger[:, :, :written] = buffer[:, :, :written]
    return larger
