//! What goes wrong, and how often. A seed has several kinds of faults, one, or none.

use relevo_core::Rng;

use crate::store::memory::Fault;

/// Kinds of faults, in the order of [`Faults::rates`].
const KINDS: [&str; 14] = [
    "crash",
    "torn-turn",
    "partition",
    "loss",
    "duplicate",
    "delay",
    "store",
    "full",
    "slow",
    "clock",
    "liar",
    "outcome",
    "cancel",
    "failure",
];

/// What goes wrong in a schedule.
pub(super) struct Faults {
    rates: [f64; KINDS.len()],
    rng: Rng,
    is_over: bool,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A node ends at some time.
    Crash,
    /// A node ends within a turn.
    TornTurn,
    /// Nothing goes from one to another for a while.
    Partition,
    /// A message is lost.
    Loss,
    /// A message arrives twice.
    Duplicate,
    /// A message takes long, up to beyond any deadline.
    Delay,
    /// A write or a commit fails.
    Store,
    /// There is no room for a while.
    Full,
    /// A commit takes long, or an agent does.
    Slow,
    /// The clock of a node is another, after a restart or while it runs.
    Clock,
    /// An answer says something else than it should.
    Liar,
    /// An outcome comes early, late, twice, not the same, or never.
    Outcome,
    /// The owner of a task calls it off.
    Cancel,
    /// A call of an agent fails.
    Failure,
}

impl Faults {
    pub(super) fn draw(seed: u64, is_long: bool) -> Faults {
        let mut rng = Rng::stream(seed, "faults");
        let mut rates = [0.0; KINDS.len()];
        let only = rng.below(4) == 0 && !is_long;
        let alone = rng.below(KINDS.len() as u32) as usize;
        for (kind, rate) in rates.iter_mut().enumerate() {
            let (on, size) = (rng.below(2) == 0, rng.unit());
            if if only { kind == alone } else { on } {
                *rate = if is_long { 0.002 } else { 0.3 * size * size };
            }
        }
        if is_long {
            // What is learned from lies is not worth measuring.
            rates[Kind::Liar as usize] = 0.0;
        }
        Faults { rates, rng, is_over: false }
    }

    /// Nothing goes wrong any more.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    pub(super) fn are_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn describe(&self) -> String {
        let on = KINDS.iter().zip(self.rates).filter(|(_, rate)| *rate > 0.0);
        let on: Vec<String> = on.map(|(kind, rate)| format!("{kind}={rate:.3}")).collect();
        on.join(" ")
    }

    /// Whether this happens now.
    pub(super) fn strikes(&mut self, kind: Kind) -> bool {
        let rate = self.rates[kind as usize];
        rate > 0.0 && !self.is_over && self.rng.unit() < rate
    }

    /// How long something takes, in milliseconds: often little, sometimes much.
    pub(super) fn time(&mut self, usual_max: u32, worst_max: u32, kind: Kind) -> u64 {
        let most = if self.strikes(kind) { worst_max } else { usual_max };
        u64::from(self.rng.below(most + 1))
    }

    /// One of so many.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.rng.below(n)
    }

    /// What goes wrong with the next commit, if anything does.
    pub(super) fn of_store(&mut self) -> Option<Fault> {
        let faults = [Fault::NotDone, Fault::Done, Fault::Torn];
        self.strikes(Kind::Store).then(|| faults[self.rng.below(3) as usize])
    }

    /// By how much the clock of a node is off from now on, in milliseconds.
    pub(super) fn skew(&mut self) -> i64 {
        match self.strikes(Kind::Clock) {
            true => {
                let most = [2_000, 60_000, 600_000, 3_600_000][self.rng.below(4) as usize];
                i64::from(self.rng.below(2 * most + 1)) - i64::from(most)
            }
            false => 0,
        }
    }
}
