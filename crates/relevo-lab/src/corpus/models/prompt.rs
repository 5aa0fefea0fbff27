//! What a scripted model makes of a request: who it is to be, with which skill, and the document.

use relevo::coordinate::{contribution::duty, document::Document, plan::Role};

use crate::model_server::Asked;

/// The models that there are, by what they are called.
pub const NAMES: [(&str, Size); 3] =
    [("scripted-small", Size::Small), ("scripted-fast", Size::Fast), ("scripted-large", Size::Large)];

/// How large a model is made out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Cheap, and often wrong.
    Small,
    /// In between.
    Fast,
    /// Dear, and seldom wrong.
    Large,
}

/// How a model works, as its skill card has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skill {
    /// In few words.
    Concise,
    /// Step by step.
    Steps,
    /// By the evidence.
    Evidence,
    /// No skill that is known here.
    Plain,
}

/// A request, understood.
pub(super) struct Prompt {
    pub(super) size: Size,
    /// None where no form is asked for.
    pub(super) part: Option<(Role, Skill, Document)>,
}

impl Prompt {
    /// Understand a request; else why it cannot be.
    pub(super) fn read(asked: &Asked) -> Result<Self, Misread> {
        let size = NAMES.iter().find(|(name, _)| *name == asked.model).ok_or(Misread::Model)?.1;
        let role = asked.form.as_deref().and_then(|form| Role::named(form.strip_prefix("relevo_")?));
        let (Some(role), Some(_)) = (role, &asked.schema) else { return Ok(Prompt { size, part: None }) };
        let said =
            |who: &str| asked.messages.iter().find(|(speaker, _)| speaker == who).map(|(_, text)| text);
        let system = said("system").ok_or(Misread::Messages)?;
        let card = system.split(duty(role)).next().unwrap_or_default();
        let user = said("user").ok_or(Misread::Messages)?;
        // Between the marks.
        let material =
            user.split_once('\n').and_then(|(_, rest)| rest.rsplit_once('\n')).ok_or(Misread::Messages)?;
        let document = Document::parse(material.0.as_bytes()).map_err(|_| Misread::Messages)?;
        Ok(Prompt { size, part: Some((role, Skill::of(card), document)) })
    }
}

/// A request that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misread {
    /// There is no such model.
    Model,
    /// The messages are not those of a cell.
    Messages,
}

impl Skill {
    /// The skill of a card, by its words.
    fn of(card: &str) -> Self {
        let says = |word: &str| card.to_lowercase().contains(word);
        match () {
            () if says("step") => Skill::Steps,
            () if says("evidence") => Skill::Evidence,
            () if says("few words") => Skill::Concise,
            () => Skill::Plain,
        }
    }
}
