//! Things kept at places that are used again, so that what moves is a small number and not the thing.

use alloc::vec::Vec;
use core::num::NonZeroU32;

/// A place in a [`Slab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(NonZeroU32);

#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Slab { items: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    #[inline(always)]
    pub(super) fn insert(&mut self, item: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.items[slot.index()] = Some(item);
            return slot;
        }
        self.items.push(Some(item));
        let count = u32::try_from(self.items.len()).ok().and_then(NonZeroU32::new);
        Slot(count.expect("what is kept is bounded far below 2^32"))
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        self.items[slot.index()].as_ref()
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, slot: Slot) -> T {
        self.free.push(slot);
        self.items[slot.index()].take().expect("whoever has the slot keeps the thing")
    }
}

impl Slot {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}
