//! What every transport must keep to.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{Packet, Report, Transport};

/// What a packet must come to, whatever else its report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// [`Report::Card`]
    Card,
    /// [`Report::Standing`]
    Standing,
    /// [`Report::Noted`]
    Noted,
    /// [`Report::Refused`]
    Refused,
    /// [`Report::Later`]
    Later,
    /// [`Report::Unreachable`]
    Unreachable,
    /// [`Report::Garbage`]
    Garbage,
}

impl Ending {
    /// Of a report.
    pub fn of(report: &Report) -> Self {
        match report {
            Report::Card(_) => Ending::Card,
            Report::Standing(_) => Ending::Standing,
            Report::Noted => Ending::Noted,
            Report::Refused(_) => Ending::Refused,
            Report::Later(_) => Ending::Later,
            Report::Unreachable(_) => Ending::Unreachable,
            Report::Garbage(_) => Ending::Garbage,
        }
    }
}

/// A packet to a peer of which it is known how it behaves.
#[derive(Clone, Debug)]
pub struct Case {
    /// How the peer behaves.
    pub peer: &'static str,
    /// What it is sent.
    pub packet: Packet,
    /// What must become of it.
    pub ending: Ending,
}

/// Check a transport: carrying begins without waiting; all packets are under way together, so that a slow peer keeps up
/// none but its own; each is reported, within `within`, as it must be; and the same again comes to the same. That none is
/// reported twice, the type of [`Reporter`](super::Reporter) says. The error names the peer, and the law.
pub fn check<T: Transport + 'static>(
    transport: &Arc<T>,
    cases: &[Case],
    within: Duration,
) -> Result<(), String> {
    for round in ["first", "second"] {
        let began = Instant::now();
        let reports: Vec<_> = cases
            .iter()
            .map(|case| {
                let (told, reported) = mpsc::sync_channel(1);
                let report = Box::new(move |report| {
                    let _ = told.send(report);
                });
                Arc::clone(transport).carry(case.packet.clone(), report);
                reported
            })
            .collect();
        if began.elapsed() > within / 2 {
            return Err(format!("carrying {} packets kept the caller waiting", cases.len()));
        }
        for (case, reported) in cases.iter().zip(reports) {
            let left = within.saturating_sub(began.elapsed());
            let report = reported
                .recv_timeout(left)
                .map_err(|_| format!("{}, {round} time: no report within {within:?}", case.peer))?;
            if Ending::of(&report) != case.ending {
                return Err(format!(
                    "{}, {round} time: {:?} was due, not {report:?}",
                    case.peer, case.ending
                ));
            }
        }
    }
    Ok(())
}
