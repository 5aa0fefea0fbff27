//! Skill cards: what a cell is told to be good at, as files in the SKILL.md convention.
//!
//! ```text
//! ---
//! name: cot
//! description: Thinks step by step.
//! ---
//! Write down every step before the answer.
//! ```

use serde::Deserialize;

/// The longest card, in bytes.
pub const BYTES_MAX: usize = 64 << 10;
/// The longest name of a skill, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A skill card. Keys of its front matter that are not here are for others, and passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillCard {
    /// Its name.
    pub name: String,
    /// When it helps.
    pub description: String,
    /// Its version: the one that it states, else the first eight digits of its digest.
    pub version: String,
    /// The model it is written for.
    pub model: Option<String>,
    /// The tools it uses.
    pub tools: Vec<String>,
    /// What must be there for it.
    pub requires: Vec<String>,
    /// The text below the front matter.
    pub instructions: String,
    /// BLAKE3 of the bytes of the file.
    pub digest: [u8; 32],
}

#[derive(Deserialize)]
struct FrontMatter {
    name: String,
    description: String,
    version: Option<String>,
    model: Option<String>,
    #[serde(default)]
    tools: Vec<String>,
    #[serde(default)]
    requires: Vec<String>,
}

impl SkillCard {
    /// Read the bytes of a card; refused with the reason if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!(
                "a skill card has at most {BYTES_MAX} bytes, not {}: shorten it",
                bytes.len()
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| format!("a skill card is a text in UTF-8: {e}"))?;
        let text = text.replace("\r\n", "\n");
        let (head, instructions) = text
            .strip_prefix("---\n")
            .and_then(|rest| rest.split_once("\n---\n").or_else(|| Some((rest.strip_suffix("\n---")?, ""))))
            .ok_or(
                "a skill card begins with the line ---, its keys (name, description), and another line ---",
            )?;
        let front: FrontMatter = serde_saphyr::from_str(head).map_err(|e| {
            let message = e.to_string();
            format!("its front matter is not as it should be: {}", message.lines().next().unwrap_or_default())
        })?;
        if front.name.is_empty() || front.name.len() > NAME_BYTES_MAX {
            return Err(format!("the name of a skill has 1 to {NAME_BYTES_MAX} bytes"));
        }
        let digest = *blake3::hash(bytes).as_bytes();
        Ok(SkillCard {
            name: front.name,
            description: front.description,
            version: front.version.unwrap_or_else(|| relevo_core::policy_file::hex(&digest[..4])),
            model: front.model,
            tools: front.tools,
            requires: front.requires,
            instructions: instructions.trim().to_owned(),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "---\nname: cot\ndescription: \"Thinks: step by step.\"\nversion: 1.10\nmodel: mini\ntools: [web, files]\n\
                        license: MIT\nmetadata:\n  author: x\n---\n# Steps\n\n---\nWrite them down.\n";

    #[test]
    fn a_card_has_a_head_and_a_body() {
        let card = SkillCard::parse(CARD.as_bytes()).unwrap();
        assert_eq!((card.name.as_str(), card.description.as_str()), ("cot", "Thinks: step by step."));
        assert_eq!((card.version.as_str(), card.model.as_deref()), ("1.10", Some("mini")));
        assert_eq!(card.tools, ["web", "files"]);
        assert_eq!(card.instructions, "# Steps\n\n---\nWrite them down.");
        let windows = SkillCard::parse(CARD.replace('\n', "\r\n").as_bytes()).unwrap();
        assert_eq!(windows.instructions, card.instructions);
        let unversioned = SkillCard::parse(b"---\nname: a\ndescription: b\n---").unwrap();
        assert_eq!(unversioned.version.len(), 8, "that of its digest");
    }

    #[test]
    fn what_is_no_card_is_refused() {
        let wrong = [
            ("name: cot\n", "begins with the line ---"),
            ("---\nname: cot\n", "begins with the line ---"),
            ("---\nname: cot\n---\n", "description"),
            ("---\nname: [cot\n---\n", "front matter"),
            ("---\nname: \"\"\ndescription: x\n---\n", "name of a skill"),
            ("---\nname: cot\ndescription: x\ntools: {a: b}\n---\n", "front matter"),
        ];
        for (text, said) in wrong {
            let message = SkillCard::parse(text.as_bytes()).unwrap_err();
            assert!(message.contains(said), "{text:?}: {message}");
        }
        assert!(SkillCard::parse(&vec![b'-'; BYTES_MAX + 1]).is_err());
        assert!(SkillCard::parse(b"---\nname: \xff").is_err());
        // A bomb of aliases: refused, not unfolded.
        let mut bomb = "---\na: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (this, last) in ('b'..'k').zip('a'..) {
            bomb += &format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(", "));
        }
        let begun = std::time::Instant::now();
        assert!(SkillCard::parse((bomb + "---\n").as_bytes()).is_err());
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    }
}
