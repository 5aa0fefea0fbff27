//! Text as the model sees it: characters, a few common pieces, roles as single tokens, numbers last digit first.

use std::sync::LazyLock;

/// The number of a token.
pub(crate) type Token = u8;

/// What has been said is over.
pub(crate) const END: Token = 0;
/// The question is told: the number that answers it comes next; or [`STEPS`].
pub(crate) const ASK: Token = 1;
/// Steps follow.
pub(crate) const STEPS: Token = 2;
/// The number that somebody settled on follows.
pub(crate) const ANSWER: Token = 3;
/// The steps of a checker follow, and one of the two verdicts.
pub(crate) const CHECK: Token = 4;
pub(crate) const RIGHT: Token = 5;
pub(crate) const WRONG: Token = 6;
/// The digit 0; the others come after it.
const ZERO: Token = 7;
const PIECES: Token = ZERO + 10;

/// Pieces of more than one character, then single ones.
#[rustfmt::skip]
const LONG: [&str; 52] = [
    " + ", " - ", " * ", "; ", ", ", ". ", "What is ", "the cost?", "How many ", "How many?", "now?", "stay?", "free?",
    " has ", "gets ", "loses ", " bags hold ", " each", " are loose", " takes ", " reads ", " pages", "then ",
    " a day", " for ", " days", " buys ", " at ", " and ", " rows of ", " seats", " taken", " broken", "Ann", "Ben",
    "Eva", "Max", "Tom", "Mia", " pens", " eggs", " cups", " nuts", " keys", " hats", "is ", "are ", "the ", "in ",
    "of ", "to ", "and ",
];
const SINGLE: &str = " +-*=()?.,;abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// How many tokens there are.
pub(crate) const VOCABULARY: usize = PIECES as usize + LONG.len() + SINGLE.len();

/// The text of each token from [`PIECES`] on.
static TEXTS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| LONG.into_iter().chain(SINGLE.split("").filter(|c| !c.is_empty())).collect());

/// The number that the tokens end with; nothing if they end otherwise.
pub(crate) fn last_number(tokens: &[Token]) -> String {
    let digits = tokens.iter().rev().take_while(|t| (ZERO..PIECES).contains(*t));
    digits.map(|t| char::from(b'0' + t - ZERO)).collect()
}

/// Append the tokens of a text: runs of digits are turned round.
///
/// # Errors
///
/// With the first character that has no token.
pub(crate) fn encode(text: &str, out: &mut Vec<Token>) -> Result<(), char> {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_digit() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            out.extend(rest[..digits].bytes().rev().map(|d| ZERO + d - b'0'));
            rest = &rest[digits..];
        } else {
            // Longer pieces come first.
            let place = TEXTS.iter().position(|piece| rest.starts_with(piece)).ok_or(first)?;
            out.push(PIECES + place as Token);
            rest = &rest[TEXTS[place].len()..];
        }
    }
    Ok(())
}

/// Turns tokens back into text; a number is held back until its last digit is known.
#[derive(Default)]
pub(crate) struct Decoder {
    digits: String,
}

impl Decoder {
    /// The text that is certain once this token is known. Roles have none.
    pub(crate) fn push(&mut self, token: Token) -> String {
        if (ZERO..PIECES).contains(&token) {
            self.digits.insert(0, char::from(b'0' + token - ZERO));
            return String::new();
        }
        let mut text = self.finish();
        if token >= PIECES {
            text += TEXTS[usize::from(token - PIECES)];
        }
        text
    }

    /// What was held back.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Level, Problem, Split};

    #[test]
    fn a_text_comes_back_from_its_tokens() {
        for level in Level::ALL {
            for index in 0..200 {
                let problem = Problem::generate(Split::Train, level, 1, index);
                for text in [problem.question.clone(), problem.rationale()] {
                    let mut tokens = vec![];
                    encode(&text, &mut tokens).expect("every character has a token");
                    let mut decoder = Decoder::default();
                    let mut back: String = tokens.iter().map(|t| decoder.push(*t)).collect();
                    back += &decoder.finish();
                    assert_eq!(back, text);
                    assert!(tokens.len() <= 48, "{} tokens: {text}", tokens.len());
                }
            }
        }
        let mut tokens = vec![];
        encode("120+3", &mut tokens).expect("every character has a token");
        assert_eq!(tokens[..3], [ZERO, ZERO + 2, ZERO + 1], "the last digit comes first");
        assert_eq!(encode("5 € left", &mut vec![]), Err('€'));
        assert_eq!(TEXTS.len() + usize::from(PIECES), VOCABULARY);
    }
}
