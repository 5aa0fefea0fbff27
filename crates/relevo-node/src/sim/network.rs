//! What goes between organisations, as text: written and read by the codecs of [`crate::wire`], so that these are under test.

use std::collections::BTreeMap;

use a2a::{SendMessageRequest, SendMessageResponse, Task};
use a2a_pb::protojson_conv::{ProtoJsonPayload, from_value, to_value};
use serde_json::Value;

use crate::{
    door::{Answer, Refusal, Request},
    ids::{TaskId, WireId},
    store::TaskRow,
    transport::{Load, Report},
    wire::{self, Incoming, Limits, Terms, WireError, word},
};

/// How much may come in.
pub(super) const LIMITS: Limits = Limits { payload_bytes_max: 4096, remembered_ms: 30 * 86_400_000 };
/// The longest answer, in bytes.
const REPLY_BYTES_MAX: usize = 16_384;

/// What is asked of a node.
#[derive(Clone, Debug)]
pub(super) enum Letter {
    /// What an agent declares.
    Card,
    /// A message, in JSON.
    Send(String),
    /// How a task stands.
    Get(String),
    /// That a task be called off.
    Cancel(String),
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Card(Option<Terms>),
    /// The response to a message, in JSON.
    Response(String),
    /// A task, in JSON.
    Task(String),
    Refused(String),
    Later,
    /// Nobody is there.
    Nobody,
}

/// What a letter asks for.
pub(super) enum Asked {
    Card,
    Request(Request),
    Look(Option<TaskId>),
}

pub(super) fn write(load: &Load) -> Letter {
    match load {
        Load::Card => Letter::Card,
        Load::Handoff { request, .. } | Load::Outcome { request } => Letter::Send(text(&**request)),
        Load::Look { task } => Letter::Get(task.clone()),
        Load::Cancel { task } => Letter::Cancel(task.clone()),
    }
}

/// Read what is asked of an agent.
pub(super) fn read(agent: &str, letter: &Letter, now_ms: u64) -> Result<Asked, WireError> {
    Ok(match letter {
        Letter::Card => Asked::Card,
        Letter::Get(task) => Asked::Look(TaskId::parse(task)),
        Letter::Cancel(task) => match TaskId::parse(task) {
            Some(task) => Asked::Request(Request::Cancel(task)),
            None => Asked::Look(None),
        },
        Letter::Send(text) => {
            let request: SendMessageRequest = parse(text)
                .ok_or_else(|| WireError { word: word::UNREADABLE, message: "no message".to_owned() })?;
            Asked::Request(match wire::incoming(agent, &request, &LIMITS, now_ms)? {
                Incoming::Handoff(arrival) => Request::Handoff { agent: agent.to_owned(), arrival },
                Incoming::Outcome(note) => Request::Outcome(note),
            })
        }
    })
}

/// Write what a machine answers to a letter; `outcome` is the handoff of which it told the outcome.
pub(super) fn write_answer(letter: &Letter, outcome: Option<WireId>, answer: Answer) -> Reply {
    match (answer, letter, outcome) {
        (Answer::Task(row), Letter::Send(_), _) => {
            Reply::Response(text(&SendMessageResponse::Task(wire::task(&row))))
        }
        (Answer::Task(row), ..) => Reply::Task(write_task(&row)),
        (Answer::Noted, _, Some(handoff)) => {
            Reply::Response(text(&SendMessageResponse::Message(wire::noted(&handoff))))
        }
        (Answer::Noted, ..) => Reply::Refused("nothing to note".to_owned()),
        (Answer::Refused(refusal), ..) => refuse(&refusal),
    }
}

/// Write how a task stands.
fn write_task(row: &TaskRow) -> String {
    // It is asked most: it goes without the detour by protobuf, which leads to the same.
    in_order(serde_json::to_value(wire::task(row)).expect("a task is JSON"))
}

/// What was written of each task the last time: most looks find it as it was.
#[derive(Default)]
pub(super) struct Shown(BTreeMap<TaskId, (TaskRow, String)>);

impl Shown {
    pub(super) fn task(&mut self, row: Option<TaskRow>) -> Reply {
        let Some(row) = row else { return Reply::Refused("not-found".to_owned()) };
        let text = match self.0.get(&row.id) {
            Some((shown, text)) if *shown == row => text.clone(),
            _ => {
                let text = write_task(&row);
                self.0.insert(row.id, (row, text.clone()));
                text
            }
        };
        Reply::Task(text)
    }
}

pub(super) fn refuse(refusal: &Refusal) -> Reply {
    match refusal.is_transient {
        true => Reply::Later,
        false => Reply::Refused(refusal.word.to_owned()),
    }
}

/// Read the reply to a load about this handoff, as a transport does.
pub(super) fn read_reply(load: &Load, wire: &WireId, reply: Reply) -> Report {
    let garbage = |word: &str| Report::Garbage(word.to_owned());
    let of = |error: WireError| garbage(error.word);
    match reply {
        Reply::Card(terms) => Report::Card(Ok(terms)),
        Reply::Refused(word) => Report::Refused(word),
        Reply::Later => Report::Later(None),
        Reply::Nobody => Report::Unreachable("no-connection".to_owned()),
        Reply::Response(text) | Reply::Task(text) if text.len() > REPLY_BYTES_MAX => garbage("too-long"),
        Reply::Response(text) => match (parse::<SendMessageResponse>(&text), load) {
            (None, _) => garbage("not-a2a"),
            (Some(response), Load::Outcome { .. }) => {
                wire::acknowledged(&response, wire).map_or_else(of, |()| Report::Noted)
            }
            (Some(response), _) => wire::answered(&response, wire, &LIMITS).map_or_else(of, Report::Standing),
        },
        Reply::Task(text) => match serde_json::from_str::<Task>(&text) {
            Err(_) => garbage("not-a2a"),
            Ok(task) => wire::standing(&task, wire, &LIMITS).map_or_else(of, Report::Standing),
        },
    }
}

/// What a liar makes of a reply: garbage, too much of it, about another handoff, or with another value.
pub(super) fn lie(reply: Reply, wire: &WireId, choice: u32) -> Reply {
    let change = |text: String| match choice {
        0 => text[..text.len() / 2].to_owned(),
        1 => text + &" ".repeat(REPLY_BYTES_MAX),
        2 => {
            let mut bytes = wire.bytes();
            bytes[15] ^= 1;
            let other = WireId::from_bytes(bytes).map_or(String::new(), |id| id.to_string());
            text.replace(&wire.to_string(), &other)
        }
        _ => match text.split_once("\"v\":") {
            Some((before, after)) => {
                let rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || "+-.e".contains(c));
                format!("{before}\"v\":0.123{rest}")
            }
            None => text,
        },
    };
    match reply {
        Reply::Response(text) => Reply::Response(change(text)),
        Reply::Task(text) => Reply::Task(change(text)),
        other => other,
    }
}

/// In JSON, with names in order: the same message is the same text in every process.
fn text<T: ProtoJsonPayload>(message: &T) -> String {
    in_order(to_value(message).expect("what is written by our codecs is A2A"))
}

fn in_order(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

fn parse<T: ProtoJsonPayload>(text: &str) -> Option<T> {
    from_value(serde_json::from_str(text).ok()?).ok()
}
