//! Trying again: what may succeed a while later is asked again, later each time, by chance, and not before a service says.

use std::time::Duration;

use relevo_core::Rng;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::agent::Failure;

/// How often, and how long, a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The longest that one attempt may take.
    pub attempt: Duration,
    /// How many attempts may follow the first.
    pub retries: u32,
    /// The longest wait before the second attempt; it doubles with each.
    pub first: Duration,
    /// The longest wait. A service that wants a longer one is not asked again.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            attempt: Duration::from_secs(60),
            retries: 3,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(60),
        }
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How.
    pub failure: Failure,
    /// When a service says that it may be asked again.
    pub retry_after: Option<Duration>,
    /// Whether somebody has heard a part of the answer: then it is not asked for again.
    pub heard: bool,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal { failure, retry_after: None, heard: false }
    }
}

impl Patience {
    /// Make attempts until one succeeds, fails for good, or `limit` is over; returns with what it gave how many came
    /// before it. `attempt` is told its number.
    pub async fn persist<T, F: Future<Output = Result<T, Refusal>>>(
        &self,
        limit: Duration,
        mut rng: Rng,
        mut attempt: impl FnMut(u32) -> F,
    ) -> Result<(T, u32), Failure> {
        let end = Instant::now() + limit;
        let over = || Failure::Timeout { ms: limit.as_millis() as u64 };
        let mut made = 0;
        loop {
            let refusal = match timeout_at(end, attempt(made)).await {
                Ok(Ok(done)) => return Ok((done, made)),
                Ok(Err(refusal)) => refusal,
                Err(_) => return Err(over()),
            };
            let wait = self.wait(made, refusal.retry_after, &mut rng);
            let again = made < self.retries && !refusal.heard && refusal.failure.is_transient();
            match wait.map(|wait| Instant::now() + wait) {
                Some(next) if again && next < end => sleep_until(next).await,
                _ => return Err(refusal.failure),
            }
            made += 1;
        }
    }

    /// How long to wait after attempt `made`; `None` if the service wants to be left alone for longer than that.
    fn wait(&self, made: u32, retry_after: Option<Duration>, rng: &mut Rng) -> Option<Duration> {
        // wait = max(what the service says, U(0, min(longest, first * 2^made)))
        let most = self.first.saturating_mul(2u32.saturating_pow(made)).min(self.longest);
        let wait = most.mul_f64(rng.unit());
        match retry_after {
            Some(stated) if stated > self.longest => None,
            stated => Some(stated.map_or(wait, |stated| stated.max(wait))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const PATIENCE: Patience = Patience {
        attempt: Duration::from_secs(5),
        retries: 4,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(4),
    };

    fn busy(retry_after: Option<u64>) -> Refusal {
        let failure = Failure::RateLimited { reason: "busy".into(), retry_after_ms: None };
        Refusal { retry_after: retry_after.map(Duration::from_secs), ..failure.into() }
    }

    /// When attempts were made that are refused like this until the one with number `good`, and what came of them.
    async fn attempts(
        limit: u64,
        seed: u64,
        good: u32,
        refusal: Refusal,
    ) -> (Vec<Duration>, Result<((), u32), Failure>) {
        let (began, made) = (Instant::now(), Mutex::new(vec![]));
        let rng = Rng::stream(seed, "test");
        let result = PATIENCE.persist(Duration::from_secs(limit), rng, |n| {
            made.lock().unwrap().push(began.elapsed());
            std::future::ready(if n == good { Ok(()) } else { Err(refusal.clone()) })
        });
        let result = result.await;
        (made.into_inner().unwrap(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_are_drawn() {
        for seed in 0..50 {
            let (at, result) = attempts(100, seed, 9, busy(None)).await;
            assert_eq!(result.unwrap_err(), busy(None).failure);
            assert_eq!(at.len(), 5, "one attempt and four more");
            for (pair, most) in at.windows(2).zip([1, 2, 4, 4]) {
                // Timers count whole milliseconds.
                assert!(pair[1] - pair[0] <= Duration::from_millis(1000 * most + 1), "{pair:?}");
            }
        }
        let again = |seed| attempts(100, seed, 9, busy(None));
        assert_eq!(again(1).await.0, again(1).await.0, "the seed says when");
        assert_ne!(again(1).await.0, again(2).await.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_not_asked_before_it_says() {
        let (at, result) = attempts(100, 1, 2, busy(Some(3))).await;
        assert_eq!(result.unwrap().1, 2, "two attempts failed before");
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(3)), "{at:?}");
        let (at, result) = attempts(100, 1, 2, busy(Some(5))).await;
        assert_eq!((at.len(), result.is_err()), (1, true), "longer than the longest wait");
        let (at, result) = attempts(4, 1, 2, busy(Some(3))).await;
        assert_eq!((at.len(), result.is_err()), (2, true), "the third would come after the end");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_succeed_is_not_tried_again() {
        let heard = Refusal { heard: true, ..busy(None) };
        for refusal in [Failure::Unauthorised("no".into()).into(), Failure::Garbage("?".into()).into(), heard]
        {
            assert_eq!(attempts(100, 1, 9, refusal).await.0.len(), 1);
        }
        let limit = Duration::from_secs(7);
        let forever = PATIENCE
            .persist(limit, Rng::stream(1, "test"), |_| std::future::pending::<Result<(), Refusal>>());
        assert_eq!(forever.await.unwrap_err(), Failure::Timeout { ms: 7000 });
    }
}
