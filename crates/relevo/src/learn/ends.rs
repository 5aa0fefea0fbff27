//! Tasks that have ended and are not on the disk yet. They are synced together, as many as have ended meanwhile, while
//! other tasks go on.

use futures_util::future::BoxFuture;

use super::EpisodeEnd;
use crate::{
    ledger::{Ledger, LedgerError},
    outcomes::Outcomes,
};

type Syncing = BoxFuture<'static, Result<(), LedgerError>>;

/// Tasks that have ended and of which nobody has been told.
#[derive(Default)]
pub(super) struct Ends {
    ended: Vec<EpisodeEnd>,
    /// Those whose records are being synced.
    syncing: Option<(Vec<EpisodeEnd>, Syncing)>,
}

impl Ends {
    pub(super) fn push(&mut self, end: EpisodeEnd) {
        self.ended.push(end);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.syncing.is_none()
    }

    /// Those whose records are on the disk, in the order in which they ended. Broken off, it goes on where it was.
    pub(super) async fn synced(
        &mut self,
        ledger: &Ledger,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<EpisodeEnd>, LedgerError> {
        let ended = &mut self.ended;
        let begin = || (std::mem::take(ended), ledger.sync(outcomes.unsynced()));
        let (_, sync) = self.syncing.get_or_insert_with(begin);
        let synced = sync.await;
        let (ends, _) = self.syncing.take().expect("it was awaited");
        synced.map(|()| ends)
    }
}
