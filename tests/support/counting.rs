//! An allocator that counts the bytes in use, for tests of what something costs in memory. A test binary includes it with
//! `#[path]`; it becomes that binary's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

/// An allocation takes at least this much beside what was asked for, in the allocators in use.
const OVERHEAD: usize = 8;

static IN_USE: AtomicI64 = AtomicI64::new(0);

/// Bytes in use by the whole process.
pub fn in_use() -> i64 {
    IN_USE.load(Ordering::Relaxed)
}

struct Counting;

fn taken(layout: Layout) -> i64 {
    (layout.size() + OVERHEAD).next_multiple_of(16) as i64
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
