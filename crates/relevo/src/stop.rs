//! The kill switch of a run: a file `STOP` in its folder. While it is there no call may begin, and those under way are
//! called off. To look for it costs one question to the file system, so a driver may look as often as it likes.
//!
//! That the file is there is all that counts: one that cannot be read, or holds nothing, stops the run just as well.
//! Every order and every lifting is kept in `stops.jsonl`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The file that stops a run.
pub const STOP_FILE: &str = "STOP";

/// The file that remembers who has stopped a run, and who has lifted that.
pub const HISTORY_FILE: &str = "stops.jsonl";

/// The longest name and reason; more is cut off.
pub const TEXT_BYTES_MAX: usize = 2048;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// An order to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopOrder {
    /// Who gave it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// An order that cannot be given or lifted.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct StopError {
    path: PathBuf,
    message: String,
}

fn fault(path: PathBuf) -> impl FnOnce(io::Error) -> StopError {
    move |e| StopError { path, message: format!("it cannot be written: {e}") }
}

/// Whether the run in the folder `run` must stop. What cannot be found out is a yes.
pub fn is_ordered(run: &Path) -> bool {
    !matches!(fs::symlink_metadata(run.join(STOP_FILE)), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

/// The order that stands.
pub fn standing(run: &Path) -> Option<StopOrder> {
    is_ordered(run).then(|| {
        read(&run.join(STOP_FILE)).unwrap_or_else(|| StopOrder {
            by: "unknown".into(),
            reason: "the file STOP does not say why".into(),
            at: 0,
        })
    })
}

fn read(path: &Path) -> Option<StopOrder> {
    // Anything else might make us wait.
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Stop the run. If it has been told so before, that order stands and is returned.
pub fn order(run: &Path, by: &str, reason: &str, at: u64) -> Result<StopOrder, StopError> {
    let path = run.join(STOP_FILE);
    let order = StopOrder { by: cut(by), reason: cut(reason), at };
    let mut file = match OpenOptions::new().create_new(true).write(true).open(&path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(standing(run).unwrap_or(order));
        }
        opened => opened.map_err(fault(path.clone()))?,
    };
    let mut line = serde_json::to_vec(&order).expect("an order holds texts and a number");
    line.push(b'\n');
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(fault(path))?;
    remember(run, "stop", &order)?;
    Ok(order)
}

/// Let the run go on. Returns the order that stood, if there was one.
pub fn lift(run: &Path, by: &str, at: u64) -> Result<Option<StopOrder>, StopError> {
    let Some(stood) = standing(run) else { return Ok(None) };
    remember(run, "lift", &StopOrder { by: cut(by), reason: stood.reason.clone(), at })?;
    let path = run.join(STOP_FILE);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(StopError { path, message: format!("it cannot be removed: {e}") })
        }
        _ => Ok(Some(stood)),
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn remember(run: &Path, what: &'static str, order: &StopOrder) -> Result<(), StopError> {
    #[derive(Serialize)]
    struct Line<'a> {
        what: &'static str,
        #[serde(flatten)]
        order: &'a StopOrder,
    }
    let path = run.join(HISTORY_FILE);
    let mut line = serde_json::to_vec(&Line { what, order }).expect("an order holds texts and a number");
    line.push(b'\n');
    let opened = OpenOptions::new().create(true).append(true).open(&path);
    opened.and_then(|mut file| file.write_all(&line).and_then(|()| file.sync_all())).map_err(fault(path))
}
