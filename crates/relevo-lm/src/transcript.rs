//! What has been said about a problem, as tokens: the form that is learned and the form that is asked for.

use crate::{
    problem::Problem,
    text::{ANSWER, ASK, CHECK, RIGHT, STEPS, Token, WRONG, encode},
};

/// A solution: steps, if there are any, and the number that was settled on, if one was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Solution {
    pub(crate) steps: Option<Vec<Token>>,
    pub(crate) number: Option<Vec<Token>>,
}

/// The steps of a checker and its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) steps: Vec<Token>,
    pub(crate) right: bool,
}

/// Tokens that grow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript(pub(crate) Vec<Token>);

impl Transcript {
    /// The question, and the mark that it is told.
    pub(crate) fn question(text: &str) -> Result<Self, char> {
        let mut tokens = vec![];
        encode(text, &mut tokens)?;
        tokens.push(ASK);
        Ok(Transcript(tokens))
    }

    pub(crate) fn of(problem: &Problem) -> Self {
        Transcript::question(&problem.question).expect("problems are made of known characters")
    }

    pub(crate) fn solution(&mut self, solution: &Solution) {
        if let Some(steps) = &solution.steps {
            self.0.push(STEPS);
            self.0.extend_from_slice(steps);
        }
        if let Some(number) = &solution.number {
            self.0.push(ANSWER);
            self.0.extend_from_slice(number);
        }
    }

    /// A check, and the mark that an answer is asked for again.
    pub(crate) fn check(&mut self, check: &Check) {
        self.0.push(CHECK);
        self.0.extend_from_slice(&check.steps);
        self.0.extend([if check.right { RIGHT } else { WRONG }, ASK]);
    }
}
