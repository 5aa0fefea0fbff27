//! A folder of its own for a test, and the command `relevo` in it.
#![allow(dead_code)] // no test needs all of it

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use relevo_core::record::{Reader, Record};
use tempfile::TempDir;

/// The folder, removed at the end.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A program of the shell.
    pub(crate) fn program(&self, name: &str, script: &str) {
        self.write(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names of what is in a folder, sorted.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let name = |e: fs::DirEntry| e.file_name().into_string().unwrap();
        let mut names: Vec<String> =
            fs::read_dir(self.path(folder)).unwrap().map(|e| name(e.unwrap())).collect();
        names.sort();
        names
    }

    /// All whole records of a run.
    pub(crate) fn ledger(&self, run: &str) -> Vec<Record> {
        let bytes = fs::read(self.path(run).join("ledger.cbor")).unwrap_or_default();
        let mut reader = Reader::new(&bytes);
        std::iter::from_fn(|| reader.next_entry().ok().flatten()).map(|entry| entry.record).collect()
    }

    /// How many tasks of a run ended for which reason.
    pub(crate) fn stops(&self, run: &str) -> BTreeMap<String, usize> {
        let mut stops = BTreeMap::new();
        for record in self.ledger(run) {
            if let Record::Closed { stop, .. } = record {
                *stops.entry(stop).or_insert(0) += 1;
            }
        }
        stops
    }

    /// `relevo` with arguments that are divided by spaces.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path()).env("USER", "ann");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn relevo(&self, arguments: &str) -> Said {
        Said::new(self.command(arguments).output().unwrap())
    }

    /// What is printed by a command that succeeds, whatever it says besides.
    pub(crate) fn ok(&self, arguments: &str) -> String {
        let said = self.relevo(arguments);
        assert_eq!(said.code, Some(0), "{arguments}: {}", said.stderr);
        said.stdout
    }

    /// What succeeds, printing only data.
    pub(crate) fn data(&self, arguments: &str) -> String {
        let said = self.relevo(arguments);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{arguments}: {}", said.stdout);
        said.stdout
    }

    /// The message of what fails, printing no data.
    pub(crate) fn error(&self, arguments: &str) -> String {
        // `policy diff` says 1 where policies differ, so its trouble is 2.
        self.error_with(if arguments.starts_with("policy diff") { 2 } else { 1 }, arguments)
    }

    /// The same with an exit code.
    pub(crate) fn error_with(&self, code: i32, arguments: &str) -> String {
        let said = self.relevo(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (Some(code), ""), "{arguments}: {}", said.stderr);
        let message = said.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{}", said.stderr));
        assert_eq!(message.lines().count(), 1, "{message}");
        message.to_owned()
    }
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let said =
            Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        said
    }
}

pub(crate) fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "it does not say {part:?}: {text}");
    }
}

/// Send a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) {
    // The shell's own; a program of this name may not be there.
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(sent.success());
}
