"""The diagnosis of PromptMRG (Jin et al., 2024): a classifier that also uses the reports of similar studies.

`DiagnosisBranch` is the classifier with cross-modal feature enhancement, `DiagnosisPrompts` converts its predictions to
tokens for the decoder, and `ALA` is its loss.

Shapes: B studies, R retrieved reports of each, K observations, D width; statuses are coded as in
`crossray.text.observations.STATUSES`.
"""

from collections.abc import Iterable

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.attention import CrossAttention, SelfAttention
from crossray.layers.dropout import Dropout
from crossray.layers.transformer import FeedForward
from crossray.text.observations import CALLED, STATUSES

POSITIVE = STATUSES.index("positive")

#: Minimum class prior, so that its logarithm is finite for a class without reports.
_LEAST = 1e-4


class RetrievedLayer(nn.Module):
    """Post-norm encoder layer over the retrieved reports, without position codes.

    Args:
        width: D; `heads`: h, a divisor of it; `dropout`: dropout probability in all parts.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, 4 * width, dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, R, D) -> (B, R, D); `mask` (B, 1, 1, R) bool, True where a report is valid."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask=mask)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class QueryLayer(nn.Module):
    """Post-norm decoder layer of DETR for one query.

    The self-attention of a single query has one key with weight 1, so it reduces to a linear map. In the first layer,
    DETR's query is zero and the map gives a constant, which `DiagnosisBranch.begin` replaces. The attention to the
    reports starts with scores of a standard deviation of about 2. With PyTorch's and Xavier's initial weights it would
    be 0.2, and the first layer would read the plain mean of all reports.

    Args:
        width: D; `heads`: h, a divisor of it; `dropout`: dropout probability in all parts.
        first: whether it is the first layer.
    """

    def __init__(self, width: int, heads: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.own = None if first else nn.Linear(width, width)
        self.own_norm = None if first else nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, 4 * width, dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.cross.query.weight, gain=3.0)
        if self.own is not None:
            nn.init.xavier_uniform_(self.own.weight)

    def forward(self, x: Tensor, query: Tensor, reports: Tensor, mask: Tensor) -> Tensor:
        """(B, 1, D) -> (B, 1, D); `query` (B, 1, D) is added to the queries; `mask` as in `RetrievedLayer`."""
        if self.own is not None and self.own_norm is not None:
            x = self.own_norm(x + self.dropout(self.own(x)))
        found, _ = self.cross(x + query, *self.cross.keys_values(reports), mask=mask)
        x = self.cross_norm(x + self.dropout(found))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class DiagnosisBranch(nn.Module):
    """Predicts the status of each observation from the pooled image and text features of retrieved reports.

    Args:
        image_width: width of the pooled image.
        text_width: width of a report's text feature.
        classes: number K of observations.
        width: width D of the layers.
        layers: number of layers of the encoder over the reports, and of the decoder.
        heads: number of attention heads; a divisor of `width`.
        dropout: dropout probability in all layers.
        image_dropout: probability with which a study is classified by its reports alone in training. An image encoder
            that was trained on the same studies knows their labels, so that the branch would learn to ignore reports.
    """

    def __init__(
        self,
        image_width: int,
        text_width: int,
        classes: int,
        width: int = 512,
        layers: int = 2,
        heads: int = 8,
        dropout: float = 0.1,
        image_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes, self.image_dropout = classes, image_dropout
        self.query = nn.Linear(image_width, width)
        self.text = nn.Linear(text_width, width)
        self.encoder = nn.ModuleList(RetrievedLayer(width, heads, dropout) for _ in range(layers))
        self.begin = nn.Parameter(torch.zeros(width))
        self.decoder = nn.ModuleList(QueryLayer(width, heads, dropout, first=not index) for index in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(image_width + width, len(STATUSES) * classes)
        nn.init.normal_(self.classify.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)

    @torch.no_grad()
    def begin_with(self, logits: Tensor) -> None:
        """Initialize the bias with the logits (4, K) of the frequencies of the statuses.

        From a bias of 0, the frequencies would first be learned through the encoded reports, which change much faster:
        after 50 steps, all reports had the same encoding and carried no information.
        """
        self.classify.bias.copy_(logits.flatten())

    def forward(self, pooled: Tensor, retrieved: Tensor, mask: Tensor) -> Tensor:
        """Compute the logits (B, 4, K) of the statuses.

        Args:
            pooled: (B, image width).
            retrieved: (B, R, text width).
            mask: (B, R) bool, True where a report is valid; at least one in every row.
        """
        visible = mask[:, None, None]
        reports = self.text(retrieved)
        for layer in self.encoder:
            reports = layer(reports, visible)
        # Normalized, so that its scale matches the layers' and does not depend on the backbone.
        query = F.layer_norm(self.query(pooled), self.norm.normalized_shape)[:, None]
        x = self.begin.expand_as(query)
        for layer in self.decoder:
            x = layer(x, query, reports, visible)
        found = self.norm(x)[:, 0]
        if self.training and self.image_dropout:
            pooled = pooled * (torch.rand(len(pooled), 1, device=pooled.device) >= self.image_dropout)
        return self.classify(torch.cat([pooled, found], dim=1)).unflatten(1, (len(STATUSES), self.classes))


class DiagnosisPrompts(nn.Module):
    """Represents the most probable status of each observation as a token before the report (diagnosis prompts).

    Args:
        ids: tokens of the four statuses.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        super().__init__()
        self.ids: Tensor
        self.register_buffer("ids", torch.tensor(list(ids)), persistent=False)

    def statuses(self, logits: Tensor, labels: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Return the most probable statuses (B, K) of logits (B, 4, K), or `labels` (B, K) if `known` (B,)."""
        found = logits.argmax(dim=1)
        return found if labels is None or known is None else torch.where(known[:, None], labels, found)

    def forward(self, logits: Tensor, labels: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Return the tokens (B, K) of `statuses`."""
        return self.ids[self.statuses(logits, labels, known)]


def called(statuses: Tensor) -> Tensor:
    """Whether status codes are positive or uncertain, bool of the same shape."""
    return torch.isin(statuses, torch.tensor(CALLED, device=statuses.device))


class ALA(nn.Module):
    """Adaptive logit-adjusted loss: rare classes need a margin in training, which shrinks as they are learned.

    log(pi_k) is added to the positive logit of class k. After each validation, pi_k becomes the mean probability of
    "positive" in studies where it is true, divided by the largest of these means.

    Args:
        classes: number K of classes.
        initial: (K,) initial pi, at most 1 each (`base_probabilities`); None for all 1.
        auxiliary: number of classes at the end whose pi does not change (four in PromptMRG).
    """

    def __init__(self, classes: int, initial: Tensor | None = None, auxiliary: int = 0) -> None:
        super().__init__()
        self.priors: Tensor
        self.sums: Tensor
        self.counts: Tensor
        self.adaptive = classes - auxiliary
        self.register_buffer("priors", torch.ones(classes))
        self.register_buffer("sums", torch.zeros(classes, dtype=torch.float64), persistent=False)
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.float64), persistent=False)
        if initial is not None:
            self.begin(initial)

    def begin(self, initial: Tensor) -> None:
        """Set pi to `initial`, (K,)."""
        self.priors.copy_(initial.float().clamp(_LEAST, 1.0))

    def forward(self, logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """Compute the mean cross-entropy of adjusted logits (B, 4, K) over studies with `known` `labels` (B, K)."""
        each = F.cross_entropy(self.adjust(logits.float()), labels, reduction="none").mean(dim=1)
        return (each * known).sum() / known.sum().clamp_min(1)

    def adjust(self, logits: Tensor) -> Tensor:
        """Add log(pi) to the positive logits of (B, 4, K) in training; return them unchanged in eval mode."""
        return logits + self.offset() if self.training else logits

    def offset(self) -> Tensor:
        """Return the adjustment in training, (4, K)."""
        offset = self.priors.new_zeros(len(STATUSES), len(self.priors))
        offset[POSITIVE] = self.priors.log()
        return offset

    def observe(self, probabilities: Tensor, labels: Tensor) -> None:
        """Accumulate the probabilities of validation studies.

        Args:
            probabilities: (B, K) predicted probabilities of "positive".
            labels: (B, K) int, codes of the true statuses.
        """
        positive = labels == POSITIVE
        self.sums += (probabilities.detach().double() * positive).sum(0)
        self.counts += positive.sum(0)

    def update(self) -> None:
        """Update pi from the observed studies and reset them; a class without positive studies keeps its pi."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.sums)
            distributed.all_reduce(self.counts)
        seen = (self.counts > 0) & (torch.arange(len(self.counts), device=self.counts.device) < self.adaptive)
        means = self.sums / self.counts.clamp_min(1)
        largest = means[seen].amax() if bool(seen.any()) else means.new_ones(())
        renewed = (means / largest.clamp_min(_LEAST)).clamp(_LEAST, 1.0).to(self.priors.dtype)
        self.priors.copy_(torch.where(seen, renewed, self.priors))
        self.sums.zero_()
        self.counts.zero_()


def status_shares(labels: Tensor) -> Tensor:
    """Compute the frequency of each status, (4, K), in labels (N, K) of status codes, with add-one smoothing."""
    counts = F.one_hot(labels.long(), len(STATUSES)).double().sum(0).T + 1
    return (counts / counts.sum(0)).float()


def base_probabilities(labels: Tensor) -> Tensor:
    """Compute the initial pi: each class's share of positive training studies, divided by the largest share.

    Args:
        labels: (N, K) int, codes of the statuses.

    Returns:
        (K,) float; all 1 if no class has a positive study.
    """
    shares = (labels == POSITIVE).double().mean(0)
    largest = shares.amax()
    return (shares / largest if float(largest) > 0 else torch.ones_like(shares)).float()
