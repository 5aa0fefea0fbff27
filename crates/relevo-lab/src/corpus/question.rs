//! Questions about a corpus, written and read again.

use super::{Class, Kind, vocabulary::Vocabulary};

/// The right answer where the documents do not say.
pub const NOT_STATED: &str = "not stated";

/// What every question ends with.
pub const HOW_TO_ANSWER: &str =
    " Answer with the value alone; where the documents do not say, answer: not stated.";

/// A question of a class, about what stands in its holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The corpus that it is about.
    pub kind: Kind,
    /// Its class.
    pub class: Class,
    /// The number of its wording, where a class has several.
    pub wording: usize,
    /// What it is about, in the order in which the question names it.
    pub about: Vec<String>,
}

impl Question {
    /// It in words.
    pub fn text(&self) -> String {
        let words = Vocabulary::of(self.kind);
        let form = match self.class {
            Class::OutOfCorpus => words.unanswered[self.wording],
            class => words.asks(class),
        };
        let about: Vec<&str> = self.about.iter().map(String::as_str).collect();
        form.fill(&about) + HOW_TO_ANSWER
    }

    /// The question that a text asks, if it is one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let asked = text.trim().strip_suffix(HOW_TO_ANSWER.trim())?.trim_end();
        Kind::ALL.into_iter().find_map(|kind| {
            let words = Vocabulary::of(kind);
            let classes = words.asked.iter().map(|(class, form)| (*class, 0, *form));
            let unanswered = words.unanswered.iter().enumerate();
            let unanswered = unanswered.map(|(wording, form)| (Class::OutOfCorpus, wording, *form));
            classes.chain(unanswered).find_map(|(class, wording, form)| {
                let about = form.read(asked)?.into_iter().map(str::to_owned).collect();
                Some(Question { kind, class, wording, about })
            })
        })
    }
}
