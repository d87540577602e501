"""Ways in which the ledger could be wrong: each is a change of a few words in its source, and each must be caught."""

from tests.simulation.mutation import Change, Mutant


def mutant(name: str, *changes: tuple[str, str, str], first: int = 0) -> Mutant:
    """`first` is a seed that noticed it quickly once; it is only where the search begins."""
    return Mutant(name, tuple(Change(f"store.ledger.{where}", old, new) for where, old, new in changes), first)


PAST_A_CAP = (
    mutant("a hold is not counted", ("batch:Batch._grant", "balance.held += amount", "balance.held += 0")),
    mutant("one too many fits beside other holds", ("decide:decide", "if needed > free:", "if needed > free + 1:")),
    mutant("one too many fits the limit", ("decide:decide", "elif needed > left:", "elif needed > left + 1:")),
    mutant("a call takes all that is free and more", ("decide:_share", "half = free // 2", "half = free * 2")),
    mutant(
        "balances are remembered instead of read",
        (
            "books:Books._know",
            "self._balances.update(found)",
            "kept = globals().setdefault('_kept', {}).setdefault(id(self.caps), {}); "
            "self._balances.update({key: kept.setdefault(key, balance) for key, balance in found.items()})",
        ),
    ),
    mutant("a raise never ends", ("rows:StoredCap.limit_at", "at_ms >= raised.until_ms", "False"), first=4),
    mutant("the last cap of a call is left out", ("batch:Batch._slots", "dict.fromkeys(request.cap_ids)", "request.cap_ids[:-1]")),
    mutant("an old configuration will do", ("batch:Batch.hold", "request.revision < self._revision", "False")),
    mutant("those ahead in the line do not count", ("decide:decide", "free -= ahead.get(stored.cap.id, 0)", "free -= 0")),
    mutant(
        "what was held before the roll is carried over", ("books:Books._roll", " - left.used - left.held", " - left.used"), first=6
    ),
    mutant("carry-over has no limit", ("books:Books._roll", "min(cap.limit, max(", "max(0, max(")),
    mutant("a window never ends", ("rows:StoredCap.start_at", "self._start_ms <= at_ms < self._end_ms", "0 < self._end_ms")),
)
FALSE_REFUSALS = (
    mutant("a call that just fits is refused", ("decide:decide", "elif needed > left:", "elif needed >= left:")),
    mutant("other calls' holds are a final refusal", ("decide:decide", "held.append(slot)", "hopeless.append(slot)")),
    mutant("who has another choice waits", ("writer:Writer._patience", " if request.may_wait else 0.0", "")),
    mutant("nobody waits", ("writer:Writer._try_hold", "waited >= self._patience(", "0.0 <= self._patience(")),
    mutant("deleted caps still bind", ("batch:Batch._slots", "if not stored.cap.deleted:", "if True:"), first=5),
    mutant("observing caps refuse", ("decide:decide", "watched.append(stored.cap.id)", "hopeless.append(slot)")),
    mutant("holds count on soft caps", ("decide:decide", "if left <= 0:", "if left - balance.held <= 0:"), first=4),
    mutant("calls that cost nothing are refused", ("decide:decide", "if bound == 0:", "if bound < 0:")),
    mutant("a trimmed call gets less than its floor", ("decide:_share", "max(floor, half)", "half"), first=2),
    mutant(
        "newcomers are served last come first",
        ("writer:Writer._work", "for hold in newcomers:", "for hold in reversed(newcomers):"),
    ),
    mutant(
        "the line is served from its end", ("writer:Writer._work", "op for op in line if not op.gone]", "op for op in line][::-1]")
    ),
    mutant("a sent call that is voided counts as a request", ("batch:_used", "if not settlement.sent:", "if False:")),
    mutant("parallel calls stay counted", ("batch:_used", "return 1 if unit is Unit.REQUESTS else 0", "return 1")),
    mutant("a reset forgets what is held", ("caps:reset_cap", "balance.used = 0", "balance.used = balance.held = 0"), first=21),
)
WRONG_SUMS = (
    mutant("a hold is released twice", ("batch:Batch._post", "balance.held -= amount", "balance.held -= 2 * amount")),
    mutant("a hold is not released", ("batch:Batch._post", "balance.held -= amount", "balance.held -= 0")),
    mutant(
        "a call is booked in the window of its end",
        (
            "batch:Batch._post",
            "key = (cap_id, stored.home(start_ms, generation, row.at_ms))",
            "key = (cap_id, stored.start_at(books.now_ms))",
        ),
    ),
    mutant("a call is settled again and again", ("batch:Batch.settle", "if row.is_open:", "if True:")),
    mutant("a late settlement is charged on top", ("batch:Batch._adjust", "real - before.get(cap_id, 0)", "real")),
    mutant(
        "a correction goes the wrong way", ("batch:Batch._adjust", "real - before.get(cap_id, 0)", "before.get(cap_id, 0) - real")
    ),
    mutant(
        "a correction after a reset is booked in full",
        ("batch:Batch._adjust", "posted.sequence <= lines.get(cap_id, 0)", "False"),
        first=3,
    ),
    mutant("a call is corrected twice", ("batch:Batch.settle", " and not posted.corrected", ""), first=7),
    mutant("tokens are booked as money", ("batch:_used", "return settlement.tokens", "return settlement.cost_nanos")),
    mutant(
        "the time is taken before the lock",
        (
            "writer:Writer.cycle",
            "self.busy_since = ",
            "self._early_ms = self._clock.now_ms(); self.busy_since = ",
        ),
        ("writer:Writer._open", "Books(connection, self._last_ms, self._caps)", "Books(connection, self._early_ms, self._caps)"),
        first=29,
    ),
    mutant(
        "a change of the window forgets what was used",
        ("caps:_recompute", "_posted_since(books.connection, new.cap.id, start_ms)", "0"),
    ),
    mutant("a change of the window forgets what is held", ("caps:put_cap", "_move_holds(books, old, new)", "pass")),
    mutant(
        "a change of the window forgets what was topped up", ("caps:_move_allowance", "if amount and ", "if False and "), first=19
    ),
    mutant("an edit comes before the roll", ("caps:put_cap", "books.load_current((cap.id,))", "pass"), first=12),
)
CRASHES = (
    mutant("the answer comes before the commit", ("writer:Writer._work", "batch.flush()", "batch.flush(); deliver(answers)")),
    mutant("recovery ignores the lease", ("epochs:Lease.take", "if lock.try_acquire():", "if lock.try_acquire() or True:")),
    mutant("what a process left is charged at nothing", ("batch:Batch.post_unconfirmed", "row.amount_nanos, row.tokens", "0, 0")),
    mutant("a recovered call is a settled call", ("batch:Batch.post_unconfirmed", "guess, UNCONFIRMED)", 'guess, "post")')),
    mutant("what a process left is voided", ("recovery:_recover", "batch.post_unconfirmed(call,", "batch.void(call,")),
    mutant("the spools of the dead are thrown away", ("recovery:book_leftovers", "_book(database, part)", "pass")),
    mutant("the spool is emptied too early", ("spool:Spool.booked", "if not self._pending and ", "if "), first=3),
    mutant("half a line stays in the spool", ("spool:Spool.append", "os.ftruncate(fd, start)", "pass"), first=11),
    mutant("a settlement that failed is not spooled", ("writer:Writer.spool", "self._spool.append([", "str([")),
    mutant(
        "calls go on while a settlement is nowhere safe",
        ("ledger:Ledger._check_open", "if self._writer.shut:", "if False:"),
        ("writer:Writer._work", "if any(operation not in operations for operation in self._unsafe):", "if False:"),
        first=13,
    ),
    mutant("a call told to stay is charged", (
        "recovery:end_forgotten", "batch.void(call, ", "batch.post_unconfirmed(call, ",
    ), first=2),
    mutant("a comparison trusts what it knew before the lock", (
        "recovery:end_forgotten", "if call in still_never_left:", "if call in never_left and call in still_never_left:",
    ), first=18),
    mutant("a live call is taken for a forgotten one", ("recovery:end_forgotten", "elif call not in live:", "else:"), (
        "recovery:end_forgotten", "or call not in live]", "or True]",
    )),
    mutant("a fenced epoch goes on", ("writer:Writer._open", "if not alive:", "if False:"), first=9),
    mutant("rows are pruned before their window is sealed", ("seal:prune", "sealed.get(key, -1) >= sequence", "True"), first=3),
)  # fmt: skip
MUTANTS = PAST_A_CAP + FALSE_REFUSALS + WRONG_SUMS + CRASHES
