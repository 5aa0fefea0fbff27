//! The parameters of the model: one array, and where each matrix lies in it.

use serde::{Deserialize, Serialize};

use crate::{rng::Rng, text::VOCABULARY};

/// The size of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Blocks of attention and a perceptron.
    pub layers: usize,
    /// Numbers per position.
    pub width: usize,
    /// Heads of attention; they share the width, an even part each.
    pub heads: usize,
    /// Hidden units of the perceptrons.
    pub hidden: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
}

/// A matrix in the array, rows after rows; it is applied from the right: y = x W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Matrix {
    pub(crate) fn of<'a>(&self, numbers: &'a [f32]) -> &'a [f32] {
        &numbers[self.start..self.start + self.rows * self.columns]
    }

    pub(crate) fn of_mut<'a>(&self, numbers: &'a mut [f32]) -> &'a mut [f32] {
        &mut numbers[self.start..self.start + self.rows * self.columns]
    }
}

/// The matrices of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Queries, keys and values, side by side.
    pub(crate) attend: Matrix,
    pub(crate) mix: Matrix,
    pub(crate) widen: Matrix,
    pub(crate) narrow: Matrix,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) embed: Matrix,
    pub(crate) blocks: Vec<Block>,
    pub(crate) unembed: Matrix,
    pub(crate) len: usize,
}

impl Shape {
    /// The model that comes with the crate.
    pub const BUNDLED: Shape = Shape { layers: 4, width: 96, heads: 4, hidden: 384, context: 256 };

    /// Whether a model can have it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Shape { layers, width, heads, hidden, context } = *self;
        let sound = (1..=64).contains(&layers)
            && (1..=64).contains(&heads)
            && (1..=4096).contains(&width)
            && width % (4 * heads) == 0
            && (1..=16_384).contains(&hidden)
            && (1..=4096).contains(&context);
        if sound { Ok(()) } else { Err(format!("no model has the shape {self:?}")) }
    }

    pub(crate) fn plan(self) -> Plan {
        let mut len = 0;
        let mut matrix = |rows, columns| {
            let start = len;
            len += rows * columns;
            Matrix { start, rows, columns }
        };
        let embed = matrix(VOCABULARY, self.width);
        let blocks = (0..self.layers)
            .map(|_| Block {
                attend: matrix(self.width, 3 * self.width),
                mix: matrix(self.width, self.width),
                widen: matrix(self.width, self.hidden),
                narrow: matrix(self.hidden, self.width),
            })
            .collect();
        let unembed = matrix(self.width, VOCABULARY);
        Plan { shape: self, embed, blocks, unembed, len }
    }
}

impl Plan {
    /// Every matrix with its name, in the order in which they lie.
    pub(crate) fn matrices(&self) -> Vec<(String, Matrix)> {
        let mut all = vec![("embed".to_owned(), self.embed)];
        for (number, block) in self.blocks.iter().enumerate() {
            let Block { attend, mix, widen, narrow } = *block;
            let named = [("attend", attend), ("mix", mix), ("widen", widen), ("narrow", narrow)];
            all.extend(named.map(|(name, matrix)| (format!("blocks.{number}.{name}"), matrix)));
        }
        all.push(("unembed".to_owned(), self.unembed));
        all
    }

    /// Matrices inside the blocks.
    pub(crate) fn inner(&self) -> impl Iterator<Item = Matrix> {
        self.blocks.iter().flat_map(|b| [b.attend, b.mix, b.widen, b.narrow])
    }

    /// Parameters before any training.
    pub(crate) fn draw(&self, seed: u64) -> Vec<f32> {
        let mut rng = Rng::stream("parameters", &[seed]);
        let mut numbers = vec![0.0; self.len];
        let mut fill = |matrix: Matrix, scale: f64| {
            matrix.of_mut(&mut numbers).fill_with(|| (scale * rng.normal()) as f32);
        };
        fill(self.embed, 0.5);
        // What is added to the stream is small at first, so that depth does not matter yet.
        let quiet = (2.0 * self.shape.layers as f64).sqrt().recip();
        let fan = |n: usize| (n as f64).sqrt().recip();
        for block in &self.blocks {
            fill(block.attend, fan(self.shape.width));
            fill(block.mix, quiet * fan(self.shape.width));
            fill(block.widen, fan(self.shape.width));
            fill(block.narrow, quiet * fan(self.shape.hidden));
        }
        fill(self.unembed, 0.2 * fan(self.shape.width));
        numbers
    }
}
