//! What a checkpoint keeps of the guard of a task. What the whole team shares is not part of it.

use minicbor::{Decode, Encode};
use relevo_core::ids::AgentId;

use super::{Permit, Takeover, TaskGuard, TeamGuard};
use crate::guard::{
    WINDOW_MAX,
    budget::{Meter, SavedMeter},
};

/// The guard of a task that waits.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SavedGuard {
    #[n(0)]
    handoffs: u32,
    #[n(1)]
    turns: u32,
    #[n(2)]
    recent: Vec<(AgentId, u64)>,
    #[n(3)]
    meter: Option<SavedMeter>,
    #[n(4)]
    takeover: Takeover,
    #[n(5)]
    approved: Option<AgentId>,
}

impl TaskGuard {
    /// All that it holds; as it was before `permit` was given, if one is out: whoever takes the task up asks for it anew.
    pub(crate) fn save(&self, permit: Option<&Permit>) -> SavedGuard {
        let takes_over = permit.filter(|permit| permit.takes_over);
        SavedGuard {
            handoffs: self.handoffs,
            turns: self.turns - u32::from(permit.is_some()),
            recent: self.recent.iter().copied().collect(),
            meter: self.meter.as_ref().map(|meter| meter.save(permit.map(Permit::estimate))),
            takeover: takes_over.map_or(self.takeover, |permit| Takeover::By(permit.agent)),
            approved: permit.map_or(self.approved, |permit| permit.approved),
        }
    }

    /// The guard that was saved so, of a task of this team. A budget that it did not have then begins at `now`.
    pub(crate) fn restore(saved: SavedGuard, team: &TeamGuard, now: u64) -> Result<Self, &'static str> {
        let SavedGuard { handoffs, turns, recent, meter, takeover, approved } = saved;
        if recent.len() > WINDOW_MAX {
            return Err("looks further back for repetitions than any team does");
        }
        let meter = team.spec().budget.as_ref().map(|budget| match meter {
            Some(meter) => Meter::restore(budget, meter),
            None => Meter::new(budget, now),
        });
        Ok(TaskGuard { handoffs, turns, recent: recent.into(), meter, takeover, approved, stopped: None })
    }
}
