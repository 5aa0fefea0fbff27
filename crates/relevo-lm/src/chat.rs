//! The chat template: from what people, teams and other models write to what the model reads, and back.
//!
//! The first of these words in the system message says what is wanted: `check`, `revise`, `rationale` or
//! `step by step`, `answer`. The other messages hold a problem, as [`crate::Problem`] prints it, and after it, if
//! anything has been said about it, blocks that each begin with a line `[name]`.

use crate::{
    problem::{letter, nearest},
    text::{ANSWER, CHECK, Decoder, END, RIGHT, STEPS, Token, WRONG, encode},
    transcript::{Check, Solution, Transcript},
};

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Says which skill is asked for.
    System,
    /// Tells the problem, and what has been said about it.
    User,
    /// What a model said before.
    Assistant,
}

/// What the model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skill {
    /// Say the letter: at once, or the one that follows from a rationale that was given; after a check, once more.
    Answer,
    /// Work it out, then say the letter; after a check, anew.
    Rationale,
    /// Work it out, then say whether the answer that was given is right.
    Check,
    /// Answer again, now that it was checked.
    Revise,
}

/// A prompt that the model has no form for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// No skill.
    #[error(
        "the system message names none of the four skills: say `answer`, `rationale` (or `step by step`), `check` or `revise`"
    )]
    Skill,
    /// No problem.
    #[error(
        "there is no problem in the messages: give the question in one line, and in the next `A) 41 B) 39 C) 51 D) 31`, two to five options"
    )]
    Problem,
    /// A checker that is shown no answer.
    #[error("there is nothing to check: give a block `[name]` with a line `Answer: C` after the problem")]
    NothingToCheck,
    /// An answer that is not among the options.
    #[error("`{0}` is not among the options")]
    Option(char),
    /// A character that the model has not learned.
    #[error("the model knows no character {0:?}; it reads letters, digits and + - * = ( ) ? . , ;")]
    Character(char),
    /// More than the model can read.
    #[error("the prompt has {tokens} tokens, and the model reads {most}: shorten the question")]
    TooLong {
        /// What it has.
        tokens: usize,
        /// What it may have.
        most: usize,
    },
}

/// What the model reads, made by [`crate::Model::prompt`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prompt {
    pub(crate) tokens: Vec<Token>,
    pub(crate) skill: Skill,
    /// The answer that is checked.
    answer: Option<char>,
    /// What may be answered.
    options: Vec<String>,
}

impl Prompt {
    /// What is asked for.
    pub fn skill(&self) -> Skill {
        self.skill
    }

    /// How long it is.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn read(messages: &[(Role, &str)], context: usize) -> Result<Self, PromptError> {
        let system: Vec<&str> =
            messages.iter().filter(|(r, _)| *r == Role::System).map(|(_, t)| *t).collect();
        let skill = skill(&system.join("\n")).ok_or(PromptError::Skill)?;
        let mut text = String::new();
        for (role, said) in messages {
            match role {
                Role::System => {}
                Role::User => text += said,
                Role::Assistant => text += &format!("[assistant]\n{said}"),
            }
            text += "\n\n";
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let (question, options, rest) = problem(&lines).ok_or(PromptError::Problem)?;
        let mut transcript = Transcript::question(&question).map_err(PromptError::Character)?;
        let (solution, settled, check) = said(rest, &options)?;
        let checked = check.filter(|_| solution != Solution::default());
        let mut answer = None;
        match (skill, &checked) {
            (Skill::Check, _) => {
                if solution == Solution::default() {
                    return Err(PromptError::NothingToCheck);
                }
                answer = settled;
                transcript.solution(&solution);
                transcript.0.push(CHECK);
            }
            (_, Some(check)) => {
                transcript.solution(&solution);
                transcript.check(check);
            }
            (Skill::Answer | Skill::Revise, None) => {
                if let Solution { steps: steps @ Some(_), .. } = solution {
                    transcript.solution(&Solution { steps, number: None });
                    transcript.0.push(ANSWER);
                }
            }
            (Skill::Rationale, None) => {}
        }
        if skill == Skill::Rationale {
            transcript.0.push(STEPS);
        }
        let (tokens, most) = (transcript.0.len(), context - 1);
        if tokens > most {
            return Err(PromptError::TooLong { tokens, most });
        }
        Ok(Prompt { tokens: transcript.0, skill, answer, options })
    }
}

/// The first word that names a skill.
fn skill(system: &str) -> Option<Skill> {
    let lower = system.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    (0..words.len()).find_map(|i| match &words[i..] {
        ["check", ..] => Some(Skill::Check),
        ["revise", ..] => Some(Skill::Revise),
        ["rationale", ..] | ["step", "by", "step", ..] => Some(Skill::Rationale),
        ["answer", ..] => Some(Skill::Answer),
        _ => None,
    })
}

/// The question, its options, and the lines after them.
fn problem<'t, 'l>(lines: &'l [&'t str]) -> Option<(String, Vec<String>, &'l [&'t str])> {
    let first = lines.iter().position(|line| line.starts_with("A)"))?;
    let mut last = first;
    while lines.get(last + 1).is_some_and(|l| l.as_bytes().get(1) == Some(&b')')) {
        last += 1;
    }
    let options = options(&lines[first..=last].join(" "))?;
    let before = &lines[..first];
    let end = before.iter().rposition(|l| !l.is_empty())? + 1;
    let start = before[..end].iter().rposition(|l| l.is_empty()).map_or(0, |blank| blank + 1);
    Some((before[start..end].join(" "), options, &lines[last + 1..]))
}

/// So many letters there are.
const OPTIONS_MAX: usize = 5;

/// `A) 41 B) 39`: what stands after each letter.
fn options(line: &str) -> Option<Vec<String>> {
    let mut rest = line.strip_prefix("A)")?;
    let mut options = vec![];
    for place in 1..=OPTIONS_MAX {
        let next = format!(" {})", crate::problem::letter(place));
        let (option, after) = match rest.split_once(&next) {
            Some((option, after)) if place < OPTIONS_MAX => (option, Some(after)),
            Some(_) => return None,
            None => (rest, None),
        };
        options.push(option.trim().to_owned());
        let Some(after) = after else { break };
        rest = after;
    }
    (options.len() >= 2 && options.iter().all(|o| !o.is_empty())).then_some(options)
}

/// The last solution, its letter, and the check that came after it, if one did.
fn said(lines: &[&str], options: &[String]) -> Result<(Solution, Option<char>, Option<Check>), PromptError> {
    let is_name = |l: &&str| l.len() > 2 && l.starts_with('[') && l.ends_with(']');
    let read = |text: &str, to: &mut Vec<Token>| encode(text, to).map_err(PromptError::Character);
    let (mut solution, mut letter) = (Solution::default(), None);
    let mut check: Option<Check> = None;
    let mut blocks = lines.split(is_name);
    // What stands before the first name is nobody's.
    blocks.next();
    for block in blocks {
        let mut steps = vec![];
        let (mut answer, mut verdict) = (None, None);
        for line in block.iter().filter(|l| !l.is_empty()) {
            if let Some(rest) = line.strip_prefix("Answer:") {
                answer = Some(named(rest.trim(), options)?);
            } else if let Some(right) = line.strip_prefix("The answer ").and_then(judged) {
                verdict = Some(right);
            } else {
                if !steps.is_empty() {
                    read("; ", &mut steps)?;
                }
                read(line, &mut steps)?;
            }
        }
        if let Some(right) = verdict {
            check = Some(Check { steps, right });
        } else if answer.is_some() || !steps.is_empty() {
            if check.take().is_some() {
                (solution, letter) = (Solution::default(), None);
            }
            if let Some(place) = answer {
                letter = place.map(crate::problem::letter);
                solution.number = None;
                if let Some(place) = place {
                    read(&options[place], solution.number.insert(vec![]))?;
                }
            }
            if !steps.is_empty() {
                solution.steps = Some(steps);
            }
        }
    }
    Ok((solution, letter, check))
}

/// What is said of a solution that came to no number.
const NONE: &str = "none";

/// The option that a letter stands for, or none.
fn named(text: &str, options: &[String]) -> Result<Option<usize>, PromptError> {
    if text == NONE {
        return Ok(None);
    }
    let letter = text.chars().next().unwrap_or('?').to_ascii_uppercase();
    let place = (u32::from(letter)).wrapping_sub(u32::from('A')) as usize;
    if place < options.len() { Ok(Some(place)) } else { Err(PromptError::Option(letter)) }
}

/// `C is right.`
fn judged(text: &str) -> Option<bool> {
    match text.split_once(" is ")?.1.trim_end_matches('.') {
        "right" => Some(true),
        "wrong" => Some(false),
        _ => None,
    }
}

/// Turns what the model says into text, piece by piece. The model says a number; the letter is that of the nearest
/// option, and `none` if it said no number, or the options are none.
pub(crate) struct Speech {
    decoder: Decoder,
    skill: Skill,
    answer: Option<char>,
    options: Vec<String>,
    /// All of it, in the model's words.
    said: String,
}

impl Speech {
    pub(crate) fn new(prompt: &Prompt) -> Self {
        let Prompt { skill, answer, .. } = *prompt;
        Speech {
            decoder: Decoder::default(),
            skill,
            answer,
            options: prompt.options.clone(),
            said: String::new(),
        }
    }

    /// What is certain now. Of an answer that was asked for at once, the letter alone is told, and not the number.
    pub(crate) fn push(&mut self, token: Token) -> String {
        let more = self.decoder.push(token);
        self.said += &more;
        let shown = matches!(self.skill, Skill::Rationale | Skill::Check);
        let mut text = if shown { more } else { String::new() };
        let gap = if shown && !self.said.is_empty() { "\n" } else { "" };
        let last = match (token, self.skill) {
            (END, Skill::Answer | Skill::Revise | Skill::Rationale) => {
                format!("Answer: {}", or_none(self.letter()))
            }
            (RIGHT, _) => format!("The answer {} is right.", or_none(self.answer)),
            (WRONG, _) => format!("The answer {} is wrong.", or_none(self.answer)),
            _ => return text,
        };
        text += gap;
        text + &last
    }

    /// What was held back.
    pub(crate) fn finish(&mut self) -> String {
        let rest = self.decoder.finish();
        if matches!(self.skill, Skill::Rationale | Skill::Check) { rest } else { String::new() }
    }

    /// The option that is the last number said.
    fn letter(&self) -> Option<char> {
        let number = self.said.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
        nearest(&self.options, number).map(letter)
    }
}

fn or_none(letter: Option<char>) -> String {
    letter.map_or(NONE.to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::ASK;

    const PROBLEM: &str = "What is 12 + 34 - 5?\nA) 41 B) 39 C) 51 D) 31\n";

    fn tokens(text: &str) -> Vec<Token> {
        let mut tokens = vec![];
        encode(text, &mut tokens).expect("every character has a token");
        tokens
    }

    /// What the model reads, after the problem, of what was said.
    #[test]
    fn a_transcript_becomes_the_last_solution_and_its_check() {
        let thinker = "\n[thinker]\n12+34=46; 46-5=41\nAnswer: A\n";
        let editor = "\n[editor]\nAnswer: B\n";
        let wrong = "\n[checker]\n12+34=46\nThe answer A is wrong.\n";
        let right = "\n[checker]\n12+34=46\nThe answer B is right.\n";
        let (full, part) = (tokens("12+34=46; 46-5=41"), tokens("12+34=46"));
        let a = [&[ANSWER], &tokens("41")[..]].concat();
        let b = [&[ANSWER], &tokens("39")[..]].concat();
        let joined = |parts: &[&[Token]]| parts.concat();
        let cases = [
            ("Answer.", String::new(), vec![]),
            ("Think step by step, then answer.", String::new(), vec![STEPS]),
            ("Answer.", thinker.to_owned(), joined(&[&[STEPS], &full, &[ANSWER]])),
            ("Answer.", editor.to_owned(), vec![]),
            ("Give a rationale.", thinker.to_owned(), vec![STEPS]),
            ("Check the answer.", editor.to_owned(), joined(&[&b, &[CHECK]])),
            ("Check.", thinker.to_owned() + editor, joined(&[&[STEPS], &full, &b, &[CHECK]])),
            (
                "Revise.",
                thinker.to_owned() + wrong,
                joined(&[&[STEPS], &full, &a, &[CHECK], &part, &[WRONG, ASK]]),
            ),
            (
                "Revise your answer step by step: rationale",
                editor.to_owned() + right,
                joined(&[&b, &[CHECK], &part, &[RIGHT, ASK]]),
            ),
            (
                "A rationale, please.",
                editor.to_owned() + right,
                joined(&[&b, &[CHECK], &part, &[RIGHT, ASK, STEPS]]),
            ),
            // What was said after the check is the solution now.
            ("Check.", thinker.to_owned() + wrong + editor, joined(&[&b, &[CHECK]])),
            ("Answer.", editor.to_owned() + wrong + thinker, joined(&[&[STEPS], &full, &[ANSWER]])),
        ];
        for (system, said, after) in cases {
            let text = format!("{PROBLEM}{said}");
            let prompt = Prompt::read(&[(Role::System, system), (Role::User, &text)], 256).expect("a prompt");
            let start = prompt.tokens.iter().position(|t| *t == ASK).expect("the problem is told") + 1;
            assert_eq!(prompt.tokens[start..], after, "{system}{said}");
        }
    }

    /// What is told of what the model says: the letter of the nearest option, the first of two.
    #[test]
    fn a_number_is_named_by_its_option() {
        let cases = [
            ("Answer.", "41", "Answer: A"),
            ("Answer.", "47", "Answer: C"),
            ("Answer.", "40", "Answer: A"),
            ("Answer.", "9000", "Answer: C"),
            ("Answer.", "pens", "Answer: none"),
            ("Step by step.", "12+34=46; 46-5=32", "12+34=46; 46-5=32\nAnswer: D"),
        ];
        for (system, said, told) in cases {
            let prompt =
                Prompt::read(&[(Role::System, system), (Role::User, PROBLEM)], 256).expect("a prompt");
            let mut speech = Speech::new(&prompt);
            let text: String = tokens(said).into_iter().chain([END]).map(|t| speech.push(t)).collect();
            assert_eq!(text, told);
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let cases = [
            ("Be kind.", PROBLEM.to_owned(), PromptError::Skill),
            ("Answer.", "What is 12 + 34?".to_owned(), PromptError::Problem),
            ("Answer.", "What is 12 + 34?\nA) 46".to_owned(), PromptError::Problem),
            ("Check.", PROBLEM.to_owned(), PromptError::NothingToCheck),
            ("Check.", format!("{PROBLEM}\n[a]\nAnswer: E"), PromptError::Option('E')),
            ("Answer.", PROBLEM.replace("12", "½"), PromptError::Character('½')),
            (
                "Answer.",
                PROBLEM.replace("12", &"1 + ".repeat(150)),
                PromptError::TooLong { tokens: 331, most: 255 },
            ),
        ];
        for (system, text, error) in cases {
            let said =
                Prompt::read(&[(Role::System, system), (Role::User, &text)], 256).expect_err("no form");
            assert_eq!(std::mem::discriminant(&said), std::mem::discriminant(&error), "{said}");
        }
    }
}
