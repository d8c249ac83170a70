"""Bounds of one party: how many of a thing at a time, and how much per minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MINUTE_S = 60.0


class Claim(Protocol):
    """Something that a stream or an attachment takes when it begins and gives back at its end."""

    def take(self) -> None:
        """Raises RequestError when there is none left."""
        ...

    def give(self, tokens: int | None = None) -> None:
        """`tokens`: how many the stream has taken in and put out, where that is known."""
        ...


class Quota:
    """A bounded number of things of one kind; one more is refused."""

    def __init__(self, most: int | None, code: ErrorCode, message: str) -> None:
        """`most`: None for no bound; it may be changed. `message` says what there are too many of;
        `{most}` in it stands for the bound.
        """
        self.most = most
        self.taken = 0
        self._code = code
        self._message = message

    def take(self) -> None:
        """Raises RequestError when there are as many as there may be."""
        if self.most is not None and self.taken >= self.most:
            raise RequestError(self._code, self._message.format(most=self.most))
        self.taken += 1

    def give(self, tokens: int | None = None) -> None:
        """One that was taken is gone; how many tokens it took makes no difference here."""
        del tokens
        self.taken -= 1


class Bucket:
    """An even flow of `most` units per period, of which at most a period's worth is saved up."""

    def __init__(
        self,
        most: int | None,
        message: str,
        now: Callable[[], float],
        *,
        period_s: float = MINUTE_S,
    ) -> None:
        """`most`: None for no bound. `message` as for a `Quota`; `now` gives seconds."""
        self.most = most
        self._period_s = period_s
        self._message = message
        self._now = now
        self._spent = 0.0
        """What is missing to a full bucket, as of `_at`."""
        self._at = now()

    def change(self, most: int | None) -> None:
        """Another rate from now on; what has been spent stays spent."""
        self._flow()
        self.most = most

    def take(self, units: int = 1) -> None:
        """Raises RequestError (`rate_limited`), which says when there will be enough."""
        if self.most is None:
            return
        lacking = self._flow() + min(units, self.most) - self.most
        if lacking > 1e-9:  # a rounded sum must not refuse the last unit
            raise RequestError(
                ErrorCode.RATE_LIMITED,
                self._message.format(most=self.most),
                retry_after_s=lacking * self._period_s / self.most,
            )
        self._spent += units

    def give(self, units: int) -> None:
        """Gives back what was taken and not used; less than nothing takes more, into debt."""
        if self.most is not None:
            self._spent = max(0.0, self._flow() - units)

    def _flow(self) -> float:
        """Lets in what is due; gives what is missing to a full bucket."""
        now = self._now()
        if self.most is None:
            self._spent = 0.0
        else:
            flowed = (now - self._at) * self.most / self._period_s
            self._spent = max(0.0, self._spent - flowed)
        self._at = now
        return self._spent


class TokenClaim:
    """One generation's share of a bucket of tokens: as many as it may write are set aside at its
    start, and at its end those it did not use are given back, or its prompt is charged.
    """

    def __init__(self, bucket: Bucket, most: int) -> None:
        self._bucket = bucket
        self._most = most
        self._taken = 0

    def take(self) -> None:
        """Raises RequestError (`rate_limited`)."""
        most = self._bucket.most
        # A long answer must be possible under a small rate: it waits for a whole minute's worth.
        self._taken = self._most if most is None else min(self._most, most)
        self._bucket.take(self._taken)

    def give(self, tokens: int | None = None) -> None:
        """None: what was set aside counts as used."""
        if tokens is not None:
            self._bucket.give(self._taken - tokens)


class All:
    """Several claims as one."""

    def __init__(self, *claims: Claim) -> None:
        self._claims = claims

    def take(self) -> None:
        """Takes one of each or, raising RequestError, none."""
        take_all(self._claims)

    def give(self, tokens: int | None = None) -> None:
        for claim in self._claims:
            claim.give(tokens)


def take_all(claims: Sequence[Claim]) -> None:
    """Takes one of each or, raising RequestError, none."""
    for index, claim in enumerate(claims):
        try:
            claim.take()
        except RequestError:
            for taken in claims[:index]:
                taken.give(0)
            raise
