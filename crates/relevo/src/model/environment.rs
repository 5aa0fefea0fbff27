//! Variables: those of this process, and those of a `.env` file, which count where the process has none. Nothing is
//! written into the process, so that programs which are started see no key of the file.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

/// The name of the file beside a team file.
pub const FILE: &str = ".env";

/// The longest such file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// As much of a service's message as a failure repeats, in bytes.
const MESSAGE_BYTES_MAX: usize = 200;

/// The variables that a team may use. Showing it shows their names alone.
#[derive(Clone, Default)]
pub struct Environment {
    /// Those of the file, or all there are.
    given: BTreeMap<String, String>,
    /// Whether those of the process count, and count first.
    process: bool,
}

/// A key for a service. Showing it does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Environment {
    /// The variables of this process, and those of a `.env` file in `folder`. What such a file says is not repeated in a
    /// failure.
    pub fn of(folder: &Path) -> Result<Self, String> {
        let path = folder.join(FILE);
        let fail = |what: &str| format!("{}: {what}", path.display());
        let size = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Environment { given: BTreeMap::new(), process: true });
            }
            found => found.map_err(|e| fail(&format!("it cannot be read: {e}")))?.len(),
        };
        if size > FILE_BYTES_MAX {
            return Err(fail(&format!("it has {size} bytes: at most {FILE_BYTES_MAX} are read")));
        }
        let lines = dotenvy::from_path_iter(&path).map_err(|_| fail("it cannot be read"))?;
        let given: Result<_, _> = lines.collect();
        let given =
            given.map_err(|_| fail("a line is not NAME=value; put values with spaces or # in quotes"))?;
        Ok(Environment { given, process: true })
    }

    /// These variables and no others.
    pub fn only<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Environment { given: variables.into_iter().map(owned).collect(), process: false }
    }

    /// The value of a variable; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<String> {
        let of_process = || self.process.then(|| std::env::var(name).ok()).flatten();
        let stated = |value: &String| !value.trim().is_empty();
        of_process().filter(stated).or_else(|| self.given.get(name).cloned().filter(stated))
    }

    /// The key in a variable.
    pub fn key(&self, name: &str) -> Option<Key> {
        self.get(name).map(|value| Key(value.trim().to_owned()))
    }
}

impl Key {
    /// What it is, for whoever sends it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` without the key.
    fn struck_from(&self, text: &str) -> String {
        text.replace(&self.0, "***")
    }
}

/// What to say where the variable of a key is not set.
pub(crate) fn missing(variable: &str) -> String {
    format!(
        "the variable {variable} is not set; put the key there, or into a file {FILE} beside the team file"
    )
}

/// What a service says, as a failure may repeat it: its beginning, without control characters and without the key that it
/// was sent.
pub(crate) fn presentable(text: &str, key: Option<&Key>) -> String {
    let mut said: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some(key) = key {
        said = key.struck_from(&said);
    }
    said.truncate(said.floor_char_boundary(MESSAGE_BYTES_MAX));
    said
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_counts_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join(FILE), text).unwrap();
        write(
            "# keys\nRELEVO_TEST_A=one\nexport RELEVO_TEST_B=\"t w o\"\nPATH=elsewhere\nRELEVO_TEST_EMPTY=\n",
        );
        let environment = Environment::of(folder.path()).unwrap();
        assert_eq!(environment.get("RELEVO_TEST_A").as_deref(), Some("one"));
        assert_eq!(environment.get("RELEVO_TEST_B").as_deref(), Some("t w o"));
        assert_eq!(environment.get("RELEVO_TEST_EMPTY"), None);
        assert_ne!(environment.get("PATH").as_deref(), Some("elsewhere"), "explicit variables win");
        assert!(std::env::var("RELEVO_TEST_A").is_err(), "and nothing is written into the process");
        let shown = format!("{environment:?} {:?}", environment.key("RELEVO_TEST_A"));
        assert!(shown.contains("RELEVO_TEST_A") && !shown.contains("one"), "{shown}");

        write("RELEVO_TEST_A=one\nsecret words without a name");
        let message = Environment::of(folder.path()).unwrap_err();
        assert!(message.contains(FILE) && !message.contains("secret"), "{message}");
        write(&"#".repeat(FILE_BYTES_MAX as usize + 1));
        assert!(Environment::of(folder.path()).is_err());
        assert!(Environment::of(Path::new("/nowhere")).is_ok(), "the file need not be there");
    }
}
