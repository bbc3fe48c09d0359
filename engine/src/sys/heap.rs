//! The memory allocator of each program that links the engine, where the C library is musl.
//!
//! musl's own takes its memory from the kernel page by page and gives each back at once. dlmalloc does no work before
//! its first allocation and takes little, as the monitor of every container must; mimalloc's first 6 MB are twenty
//! monitors' memory.
#![expect(unsafe_code, reason = "the trait of allocators is unsafe, and dlmalloc's methods are")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};

use dlmalloc::Dlmalloc;

#[global_allocator]
static HEAP: Heap = Heap::new();

/// What dlmalloc takes from the kernel at a time, in bytes. Pages of it that nothing touches cost nothing.
const GRANULARITY: usize = 1 << 20;

/// How often a thread looks at a lock that is held before it lets another one run: about as long as an allocation.
const GLANCES: u32 = 100;

/// dlmalloc behind a lock that is one atomic operation: a mutex of the C library is two, which together are a sixth of
/// what reading a large compose file takes.
struct Heap {
    taken: AtomicBool,
    memory: UnsafeCell<Dlmalloc>,
}

// SAFETY: the memory is reached through `locked` alone, by one thread at a time.
unsafe impl Sync for Heap {}

impl Heap {
    const fn new() -> Self {
        let mut memory = Dlmalloc::new();
        memory.set_granularity(GRANULARITY);
        Heap { taken: AtomicBool::new(false), memory: UnsafeCell::new(memory) }
    }

    /// Neither `work` allocates nor can it unwind, so the lock is always given back.
    #[inline]
    fn locked<T>(&self, work: impl FnOnce(&mut Dlmalloc) -> T) -> T {
        let mut glances = 0;
        while self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.taken.load(Ordering::Relaxed) {
                glances += 1;
                if glances % GLANCES == 0 {
                    std::thread::yield_now();
                } else {
                    hint::spin_loop();
                }
            }
        }
        // SAFETY: whoever has taken the lock is alone, and no call of `work` keeps the reference.
        let done = work(unsafe { &mut *self.memory.get() });
        self.taken.store(false, Ordering::Release);
        done
    }
}

// SAFETY: dlmalloc's memory has the size and alignment that were asked for and is nobody else's until it is freed.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero, as the caller promises.
        self.locked(|memory| unsafe { memory.malloc(layout.size(), layout.align()) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        self.locked(|memory| unsafe { memory.calloc(layout.size(), layout.align()) })
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer is of this allocator and of this layout, as the caller promises.
        self.locked(|memory| unsafe { memory.free(pointer, layout.size(), layout.align()) });
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`, and the new size is not zero.
        self.locked(|memory| unsafe { memory.realloc(pointer, layout.size(), layout.align(), size) })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    /// Threads that allocate, grow, hand over and free at once find what they wrote.
    #[test]
    fn threads_share_it() {
        let threads: Vec<_> = (0..8_u8)
            .map(|mark| {
                thread::spawn(move || {
                    let mut kept: Vec<Vec<u8>> = Vec::new();
                    for round in 0..2_000_usize {
                        kept.push(vec![mark; round % 700]);
                        let chosen = round * 31 % kept.len();
                        kept[chosen].extend([mark; 40]);
                        if round % 3 == 0 {
                            kept.swap_remove(chosen);
                        }
                    }
                    kept
                })
            })
            .collect();
        for (mark, thread) in (0..8_u8).zip(threads) {
            let kept = thread.join().expect("the thread ends well");
            assert!(kept.iter().flatten().all(|byte| *byte == mark));
        }
    }
}
