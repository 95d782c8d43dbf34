//! The work that every program here does, as tests/bench/peers/README.md words it: `PROGRAM URL WORK COUNT RATE`.
//!
//! Hides: arguments, pace, and the lines that the driver waits for.
//! Threads: the program's first.
//! Failure: panics.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub const SCENE: &str = "S2A_MSIL1C_20260101T100031_N0500_R02";
pub const BAND: &str = "B02_10m_jp2_";

pub struct Work {
    pub url: String,
    pub name: String,
    count: u64,
    rate: u64,
}

impl Work {
    pub fn from_arguments() -> Work {
        let arguments: Vec<String> = std::env::args().collect();
        let [_, url, name, count, rate] = arguments.as_slice() else {
            panic!("usage: PROGRAM URL WORK COUNT RATE");
        };
        Work {
            url: url.clone(),
            name: name.clone(),
            count: count.parse().expect("COUNT"),
            rate: rate.parse().expect("RATE"),
        }
    }

    /// `burst(first, n)` does the operation n times; `finish` delivers what is left. Tells what a call cost its caller.
    pub fn perform(&self, mut burst: impl FnMut(u64, u64), finish: impl FnOnce()) {
        println!("ready");
        std::io::stdout().flush().unwrap();
        let mut word = String::new();
        std::io::stdin().read_line(&mut word).unwrap();
        let each = if self.rate == 0 { 1000 } else { self.rate / 1000 };
        let mut next = Instant::now();
        let mut spent = Duration::ZERO;
        let mut done = 0;
        while done < self.count {
            if self.rate != 0 {
                next += Duration::from_millis(1);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            let n = each.min(self.count - done);
            let begin = Instant::now();
            burst(done, n);
            spent += begin.elapsed();
            done += n;
        }
        finish();
        println!("recorded {} ns {:.1}", done, spent.as_nanos() as f64 / done as f64);
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read(&mut [0u8; 1]);
    }
}
