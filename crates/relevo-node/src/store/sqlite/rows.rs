//! Rows, as SQLite keeps them.

use std::{error::Error, sync::Arc};

use minicbor::{Decoder, data::Type as Cbor};
use relevo::artifact::Artifact;
use relevo_core::ids::AgentId;
use rusqlite::{Connection, OptionalExtension, Result, Row, params, types::Type};

use super::known::Seen;
use crate::{
    ids::{PeerId, TaskId, WireId},
    store::{Closing, Filter, MadeRow, MadeState, PushRow, TaskRow, TaskState},
};

const TASK_STATES: [TaskState; 5] =
    [TaskState::Working, TaskState::Completed, TaskState::Failed, TaskState::Canceled, TaskState::Rejected];
const MADE_STATES: [MadeState; 3] = [MadeState::Sending, MadeState::Taken, MadeState::Ended];

// A statement with an outer join would be compiled anew each time that it is taken from the cache.
macro_rules! select_task {
    ($rest:literal) => {
        concat!(
            "SELECT peer, id, message, digest, context, agent, passes_value, received_ms, deadline_ms, state, changed_ms,
                value, why, closing, outcome, (SELECT state FROM stay WHERE task = came),
                (SELECT facts FROM result WHERE task = came), (SELECT payload FROM result WHERE task = came), came
            FROM task WHERE peer = ?1 AND ",
            $rest
        )
    };
}

pub(super) fn task(db: &Connection, peer: PeerId, id: TaskId) -> Result<Option<(i64, TaskRow)>> {
    db.prepare_cached(select_task!("id = ?2"))?
        .query_row(params![peer.0, id.bytes()], |row| Ok((row.get(18)?, read_task(row)?)))
        .optional()
}

pub(super) fn tasks(db: &Connection, peer: PeerId, filter: &Filter) -> Result<(Vec<TaskRow>, u64)> {
    // Both are read from the same state.
    let state = db.unchecked_transaction()?;
    let since = time(filter.changed_since_ms.unwrap_or(0).min(i64::MAX as u64));
    let status = filter.state.map(|state| state as i64);
    let (before_ms, before) = filter.after.map_or((i64::MAX, [0xff; 16]), |(ms, id)| (time(ms), id.bytes()));
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut page = state.prepare_cached(select_task!(
        "changed_ms >= ?2 AND (?3 IS NULL OR context = ?3) AND (?4 IS NULL OR state = ?4)
            AND (changed_ms, id) < (?5, ?6) ORDER BY changed_ms DESC, id DESC LIMIT ?7"
    ))?;
    let rows = page
        .query_map(params![peer.0, since, filter.context, status, before_ms, before, limit], read_task)?
        .collect::<Result<_>>()?;
    let count = state
        .prepare_cached(
            "SELECT count(*) FROM task
            WHERE peer = ?1 AND changed_ms >= ?2 AND (?3 IS NULL OR context = ?3) AND (?4 IS NULL OR state = ?4)",
        )?
        .query_row(params![peer.0, since, filter.context, status], |row| row.get(0))
        .map(i64::cast_unsigned)?;
    Ok((rows, count))
}

/// Keep a task, instead of what is kept of it, if that is known; what the row is numbered.
pub(super) fn put_task(db: &Connection, row: &TaskRow, kept: Option<&Seen<TaskRow>>) -> Result<i64> {
    let (came, old) = match kept {
        Some(Seen::Row(came, old)) if comes_alike(old, row) => {
            if (old.changed_ms, old.is_open()) != (row.changed_ms, row.is_open()) {
                db.prepare_cached("UPDATE task SET changed_ms = ?2, open = ?3 WHERE came = ?1")?
                    .execute(params![came, time(row.changed_ms), row.is_open()])?;
            }
            db.prepare_cached(
                "UPDATE task SET state = ?2, value = ?3, why = ?4, closing = ?5, outcome = ?6 WHERE came = ?1",
            )?
            .execute(params![
                came,
                row.state as i64,
                row.value.map(bits),
                row.why,
                row.closing.map(closing),
                row.outcome.map(bits),
            ])?;
            (*came, Some((&old.stay, &old.result)))
        }
        _ => (insert_task(db, row)?, matches!(kept, Some(Seen::Absent)).then_some((&None, &None))),
    };
    if old.is_none_or(|(stay, _)| *stay != row.stay) {
        match &row.stay {
            Some(stay) => db
                .prepare_cached("INSERT INTO stay VALUES (?1, ?2) ON CONFLICT DO UPDATE SET state = ?2")?
                .execute(params![came, stay])?,
            None => db.prepare_cached("DELETE FROM stay WHERE task = ?1")?.execute([came])?,
        };
    }
    if old.is_none_or(|(_, result)| *result != row.result) {
        match &row.result {
            Some(result) => db
                .prepare_cached(
                    "INSERT INTO result VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET facts = ?2, payload = ?3",
                )?
                .execute(params![came, facts(result), &result.payload[..]])?,
            None => db.prepare_cached("DELETE FROM result WHERE task = ?1")?.execute([came])?,
        };
    }
    Ok(came)
}

/// Whether two rows agree in what a task comes with.
fn comes_alike(old: &TaskRow, new: &TaskRow) -> bool {
    let came = |row: &TaskRow| (row.digest, row.agent, row.passes_value, row.received_ms, row.deadline_ms);
    came(old) == came(new) && old.message == new.message && old.context == new.context
}

fn insert_task(db: &Connection, row: &TaskRow) -> Result<i64> {
    // The condition holds the id of a task to its message.
    db.prepare_cached(
        "INSERT INTO task (peer, id, message, digest, context, agent, passes_value, received_ms, deadline_ms, state,
            changed_ms, value, why, closing, outcome, open)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
        ON CONFLICT (peer, id) DO UPDATE SET digest = ?4, context = ?5, agent = ?6, passes_value = ?7,
            received_ms = ?8, deadline_ms = ?9, state = ?10, changed_ms = ?11, value = ?12, why = ?13, closing = ?14,
            outcome = ?15, open = ?16
        WHERE message = ?3
        RETURNING came",
    )?
    .query_row(
        params![
            row.peer.0,
            row.id.bytes(),
            row.message,
            row.digest,
            row.context,
            row.agent.0,
            row.passes_value,
            time(row.received_ms),
            time(row.deadline_ms),
            row.state as i64,
            time(row.changed_ms),
            row.value.map(bits),
            row.why,
            row.closing.map(closing),
            row.outcome.map(bits),
            row.is_open(),
        ],
        |row| row.get(0),
    )
}

pub(super) fn made(db: &Connection, wire: WireId) -> Result<Option<(i64, MadeRow)>> {
    db.prepare_cached(
        "SELECT wire, peer, agent, task_peer, task, handoff, deadline_ms, state,
            (SELECT facts FROM artifact WHERE made = number), (SELECT payload FROM artifact WHERE made = number), remote,
            value, settled, outcome, telling, cancels, passes_value, number
        FROM made WHERE wire = ?1",
    )?
    .query_row([wire.bytes()], |row| Ok((row.get(17)?, read_made(row)?)))
    .optional()
}

/// Keep a handoff, instead of what is kept of it, if that is known; what the row is numbered.
pub(super) fn put_made(db: &Connection, row: &MadeRow, kept: Option<&Seen<MadeRow>>) -> Result<i64> {
    let (number, old) = match kept {
        Some(Seen::Row(number, old)) if is_made_alike(old, row) => {
            if old.is_open() != row.is_open() {
                db.prepare_cached("UPDATE made SET open = ?2 WHERE number = ?1")?
                    .execute(params![number, row.is_open()])?;
            }
            db.prepare_cached(
                "UPDATE made SET state = ?2, remote = ?3, value = ?4, settled = ?5, outcome = ?6, telling = ?7,
                    cancels = ?8, passes_value = ?9 WHERE number = ?1",
            )?
            .execute(params![
                number,
                row.state as i64,
                row.remote,
                row.value.map(bits),
                row.settled,
                row.outcome.map(bits),
                row.telling.map(|wire| wire.bytes()),
                row.cancels,
                row.passes_value,
            ])?;
            (*number, Some(&old.artifact))
        }
        _ => (insert_made(db, row)?, matches!(kept, Some(Seen::Absent)).then_some(&None)),
    };
    if old.is_none_or(|artifact| *artifact != row.artifact) {
        match &row.artifact {
            Some(artifact) => db
                .prepare_cached(
                    "INSERT INTO artifact VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET facts = ?2, payload = ?3",
                )?
                .execute(params![number, facts(artifact), &artifact.payload[..]])?,
            None => db.prepare_cached("DELETE FROM artifact WHERE made = ?1")?.execute([number])?,
        };
    }
    Ok(number)
}

/// Whether two rows agree in what a handoff is made with.
fn is_made_alike(old: &MadeRow, new: &MadeRow) -> bool {
    let made = |row: &MadeRow| (row.peer, row.agent, row.task, row.handoff, row.deadline_ms);
    made(old) == made(new)
}

fn insert_made(db: &Connection, row: &MadeRow) -> Result<i64> {
    db.prepare_cached(
        "INSERT INTO made (wire, peer, agent, task_peer, task, handoff, deadline_ms, state, remote, value, settled,
            outcome, telling, cancels, passes_value, open)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
        ON CONFLICT (wire) DO UPDATE SET peer = ?2, agent = ?3, task_peer = ?4, task = ?5, handoff = ?6,
            deadline_ms = ?7, state = ?8, remote = ?9, value = ?10, settled = ?11, outcome = ?12, telling = ?13,
            cancels = ?14, passes_value = ?15, open = ?16
        RETURNING number",
    )?
    .query_row(
        params![
            row.wire.bytes(),
            row.peer.0,
            row.agent.0,
            row.task.0.0,
            row.task.1.bytes(),
            cbor(row.handoff),
            time(row.deadline_ms),
            row.state as i64,
            row.remote,
            row.value.map(bits),
            row.settled,
            row.outcome.map(bits),
            row.telling.map(|wire| wire.bytes()),
            row.cancels,
            row.passes_value,
            row.is_open(),
        ],
        |row| row.get(0),
    )
}

pub(super) fn pushes(db: &Connection, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>> {
    db.prepare_cached("SELECT id, config FROM push WHERE peer = ?1 AND task = ?2 ORDER BY id")?
        .query_map(params![peer.0, task.bytes()], |row| {
            Ok(PushRow { peer, task, id: row.get(0)?, config: row.get(1)? })
        })?
        .collect()
}

pub(super) fn untold(db: &Connection, peer: PeerId, limit: usize) -> Result<Vec<PushRow>> {
    db.prepare_cached(
        "SELECT push.task, push.id, config FROM push JOIN task ON task.peer = push.peer AND task.id = push.task
        WHERE push.peer = ?1 AND state != ?2 LIMIT ?3",
    )?
    .query_map(params![peer.0, TaskState::Working as i64, limit as i64], |row| {
        Ok(PushRow { peer, task: TaskId::from_bytes(row.get(0)?), id: row.get(1)?, config: row.get(2)? })
    })?
    .collect()
}

pub(super) fn peers(db: &Connection) -> Result<Vec<(String, Vec<u8>)>> {
    db.prepare_cached("SELECT name, counters FROM peer ORDER BY number")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn read_task(row: &Row<'_>) -> Result<TaskRow> {
    Ok(TaskRow {
        peer: PeerId(row.get(0)?),
        id: TaskId::from_bytes(row.get(1)?),
        message: row.get(2)?,
        digest: row.get(3)?,
        context: row.get(4)?,
        agent: AgentId(row.get(5)?),
        passes_value: row.get(6)?,
        received_ms: row.get(7).map(i64::cast_unsigned)?,
        deadline_ms: row.get(8).map(i64::cast_unsigned)?,
        state: state(row, 9, &TASK_STATES)?,
        changed_ms: row.get(10).map(i64::cast_unsigned)?,
        value: number(row, 11)?,
        why: row.get(12)?,
        closing: row
            .get::<_, Option<Vec<u8>>>(13)?
            .map(|bytes| read_closing(&bytes).map_err(|e| unreadable(13, e)))
            .transpose()?,
        outcome: number(row, 14)?,
        stay: row.get(15)?,
        result: artifact(row, 16)?,
    })
}

fn read_made(row: &Row<'_>) -> Result<MadeRow> {
    let handoff: Vec<u8> = row.get(5)?;
    Ok(MadeRow {
        wire: wire_at(row, 0)?,
        peer: PeerId(row.get(1)?),
        agent: AgentId(row.get(2)?),
        task: (PeerId(row.get(3)?), TaskId::from_bytes(row.get(4)?)),
        handoff: minicbor::decode(&handoff).map_err(|e| unreadable(5, e))?,
        deadline_ms: row.get(6).map(i64::cast_unsigned)?,
        state: state(row, 7, &MADE_STATES)?,
        artifact: artifact(row, 8)?,
        remote: row.get(10)?,
        value: number(row, 11)?,
        settled: row.get(12)?,
        outcome: number(row, 13)?,
        telling: row
            .get::<_, Option<_>>(14)?
            .map(|bytes| wire(bytes).map_err(|e| unreadable(14, e)))
            .transpose()?,
        cancels: row.get(15)?,
        passes_value: row.get(16)?,
    })
}

/// SQLite has no unsigned integers; times and bits are kept in signed ones, bit for bit.
fn time(ms: u64) -> i64 {
    ms.cast_signed()
}

fn bits(value: f64) -> i64 {
    value.to_bits().cast_signed()
}

fn number(row: &Row<'_>, index: usize) -> Result<Option<f64>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(|bits| f64::from_bits(bits.cast_unsigned())))
}

fn state<T: Copy>(row: &Row<'_>, index: usize, states: &[T]) -> Result<T> {
    let kept: u8 = row.get(index)?;
    states
        .get(usize::from(kept))
        .copied()
        .ok_or_else(|| unreadable(index, format!("no state has number {kept}")))
}

fn facts(artifact: &Artifact) -> String {
    serde_json::to_string(&artifact.facts).expect("facts are texts, numbers, and true or false")
}

fn artifact(row: &Row<'_>, index: usize) -> Result<Option<Artifact>> {
    let Some(facts) = row.get::<_, Option<String>>(index)? else { return Ok(None) };
    let facts = serde_json::from_str(&facts).map_err(|e| unreadable(index, e))?;
    let payload: Arc<[u8]> = row.get(index + 1)?;
    Ok(Some(Artifact { facts, payload }))
}

fn closing(closing: Closing) -> Vec<u8> {
    match closing {
        Closing::Here(handoff) => cbor(handoff),
        Closing::There(wire) => cbor(minicbor::bytes::ByteArray::from(wire.bytes())),
    }
}

fn read_closing(bytes: &[u8]) -> std::result::Result<Closing, Box<dyn Error + Send + Sync>> {
    let mut decoder = Decoder::new(bytes);
    Ok(match decoder.datatype()? {
        Cbor::Bytes => Closing::There(wire(decoder.bytes()?.try_into()?)?),
        _ => Closing::Here(decoder.decode()?),
    })
}

pub(super) fn wire_at(row: &Row<'_>, index: usize) -> Result<WireId> {
    wire(row.get(index)?).map_err(|e| unreadable(index, e))
}

/// No id that was made at this time or later stands before this.
pub(super) fn first_wire_of(ms: i64) -> [u8; 16] {
    let mut first = [0; 16];
    first[..6].copy_from_slice(&ms.clamp(0, (1 << 48) - 1).to_be_bytes()[2..]);
    first
}

fn wire(bytes: [u8; 16]) -> std::result::Result<WireId, &'static str> {
    WireId::from_bytes(bytes).ok_or("an id is no UUID of version 7")
}

fn cbor(value: impl minicbor::Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("memory takes all that is written")
}

fn unreadable(index: usize, why: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Blob, why.into())
}
