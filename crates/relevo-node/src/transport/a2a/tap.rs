use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::{Request, StatusCode};
use serde::Serialize;

use super::Clock;
use crate::{ids::PeerId, transport::Report};

/// Writes down what is asked of other organisations, and what they answer: one line of JSON for each exchange, with the bodies
/// as they went. What is shown to them as a credential is not in it. Lines are as long as requests and replies may be.
pub struct Tap {
    file: Mutex<File>,
    names: Vec<String>,
    clock: Clock,
    is_broken: AtomicBool,
}

/// An exchange that has begun; its line is written at its end, whatever that is.
pub(super) struct Exchange<'t> {
    tap: &'t Tap,
    line: Line,
}

#[derive(Serialize)]
struct Line {
    /// When it began, in milliseconds since 1970.
    ms: u64,
    peer: String,
    /// Nobody, where the end of a task is told.
    agent: Option<String>,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    request: String,
    /// Nothing, where no whole answer came.
    status: Option<u16>,
    response: Option<String>,
}

impl Tap {
    /// Append to this file, which its owner alone may read; peers have these names, by their numbers.
    pub fn open(path: &Path, names: Vec<String>, clock: Clock) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Tap { file: Mutex::new(file), names, clock, is_broken: AtomicBool::new(false) })
    }

    /// Begin an exchange, before a credential is put to the request; a sensitive header is not written either. Once a line could not be written, there are none:
    /// nothing crosses that would be missing here.
    pub(super) fn begin(
        &self,
        peer: PeerId,
        agent: Option<&str>,
        request: &Request,
    ) -> Result<Exchange<'_>, Report> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Report::Unreachable("tap".to_owned()));
        }
        let headers = request.headers().iter().filter(|(_, value)| !value.is_sensitive());
        let headers = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        let line = Line {
            ms: (self.clock)(),
            peer: self.names.get(peer.0 as usize).cloned().unwrap_or_default(),
            agent: agent.map(str::to_owned),
            method: request.method().to_string(),
            path: request.url().path().to_owned(),
            headers: headers.collect(),
            request: text(request.body().and_then(|body| body.as_bytes()).unwrap_or_default()),
            status: None,
            response: None,
        };
        Ok(Exchange { tap: self, line })
    }

    fn write(&self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}

impl Exchange<'_> {
    /// An answer has come, whose body was read as a whole or not looked at.
    pub(super) fn answered(&mut self, status: StatusCode, body: Option<&[u8]>) {
        self.line.status = Some(status.as_u16());
        self.line.response = body.map(text);
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if self.tap.write(&self.line).is_err() {
            self.tap.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

/// JSON is UTF-8; of what is not, that much is seen that it is not.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
