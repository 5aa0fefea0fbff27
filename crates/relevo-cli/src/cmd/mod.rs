//! One file per verb. Data goes to standard output, everything said beside it to standard error.

/// `eprintln!` that does not mind when nobody listens any more: a run goes on without its reader.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), $($text)*);
    }};
}
pub(crate) use say;

pub(crate) mod approvals;
pub(crate) mod corpus;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod judge;
pub(crate) mod lab;
pub(crate) mod learn;
pub(crate) mod lm;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod stop;

/// What went wrong, for a person: what, where, what to try.
pub(crate) type Fault = Box<dyn std::error::Error>;

/// Print to standard output; a reader that has gone away (`| head`) is no fault.
pub(crate) fn print(text: &str) -> Result<(), Fault> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A text from outside in one line, with nothing in it that a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
