//! A small language model in the box: a decoder-only transformer over characters that solves multiple-choice
//! arithmetic, works it out step by step, and checks what others have worked out. Nothing but its weights decides what
//! it says.
//!
//! [`Model`] reads a [`Prompt`] and says what follows; [`Serving`](serve::Serving) lets others ask it by HTTP;
//! [`train`](train::train) makes it, from nothing but [`Problem`]s that it generates.

mod backprop;
pub mod bench;
mod chat;
mod generate;
mod lesson;
mod linear;
pub mod measure;
mod model;
mod network;
mod optimise;
mod problem;
mod question;
mod rng;
pub mod serve;
mod shape;
mod text;
pub mod train;
mod transcript;
mod wire;
mod worker;

pub use chat::{Prompt, PromptError, Role, Skill};
pub use generate::{Continue, Finish};
pub use model::{Completion, Model, Request, WeightsError};
pub use problem::{Level, Problem, Split};
pub use shape::Shape;
