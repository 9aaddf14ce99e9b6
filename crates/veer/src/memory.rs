//! Memory of a process that runs for long and mostly rests.

use std::io;
use std::time::Duration;

/// How often a process looks whether it rests. The first look comes when it has started: certificates are there, listeners are
/// open, the first configuration has come.
const LOOK: Duration = Duration::from_secs(5);
/// Who used less of a processor than this since the last look rests; in ticks of a hundredth of a second.
const RESTING: u64 = 3;
/// Less than this is what a process that rests uses, in KiB: to let it go would only fetch it again.
const LEAST: usize = 5 * 1024;

/// Lets go of the program's own pages that a process at rest does not use: command line, file formats, making of certificates, the
/// path of requests when none come. Linux maps 64 KiB around every first use of a page, so that most of a program is resident
/// though a tenth of it is in use; what is used again is mapped again, without reading the disk.
pub async fn settle() {
    let mut used = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let before = std::mem::replace(&mut used, processor_time());
        if let (Some(before), Some(now)) = (before, used)
            && now - before >= RESTING
        {
            continue;
        }
        match release_program(LEAST) {
            Ok(kib) => tracing::debug!(kib, "let go of pages of the program"),
            Err(error) => {
                tracing::debug!(%error, "cannot let go of pages of the program");
                return;
            }
        }
    }
}

/// What all threads have used, in the same ticks (`USER_HZ`, proc_pid_stat(5)).
fn processor_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Unmaps the pages of program and libraries that nobody has written to, if there are at least so many KiB. Says how many
/// there were.
fn release_program(least: usize) -> io::Result<usize> {
    let all = std::fs::read_to_string("/proc/self/smaps")?;
    let program: Vec<_> = mappings(&all).filter(Mapping::is_untouched_program).collect();
    let resident = program.iter().map(|mapping| mapping.resident).sum();
    if resident < least {
        return Ok(0);
    }
    program.iter().try_for_each(release)?;
    Ok(resident)
}

#[allow(unsafe_code)]
fn release(mapping: &Mapping<'_>) -> io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(mapping.start);
    // SAFETY: a private mapping of a file, without write permission, of which no page was ever written to: the next access
    // finds the same bytes in the file, as it does when the kernel itself drops such pages.
    unsafe { rustix::mm::madvise(start, mapping.end - mapping.start, rustix::mm::Advice::LinuxDontNeed) }?;
    Ok(())
}

/// One entry of `/proc/self/smaps` (proc_pid_smaps(5)).
#[derive(Debug, PartialEq)]
struct Mapping<'a> {
    start: usize,
    end: usize,
    permissions: &'a str,
    path: &'a str,
    /// In KiB.
    resident: usize,
    /// Pages of its own, in KiB: those that were written to.
    anonymous: usize,
}

impl Mapping<'_> {
    fn is_untouched_program(&self) -> bool {
        matches!(self.permissions, "r-xp" | "r--p") && self.path.starts_with('/') && self.anonymous == 0
    }
}

fn mappings(smaps: &str) -> impl Iterator<Item = Mapping<'_>> {
    let mut lines = smaps.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let Some(mut mapping) = head(lines.next()?) else { continue };
            let mut complete = false;
            while let Some((name, value)) =
                lines.peek().filter(|line| head(line).is_none()).and_then(|l| l.split_once(':'))
            {
                let kib = value.trim().strip_suffix(" kB").and_then(|kib| kib.parse().ok());
                match (name, kib) {
                    ("Rss", Some(kib)) => mapping.resident = kib,
                    ("Anonymous", Some(kib)) => (mapping.anonymous, complete) = (kib, true),
                    _ => {}
                }
                lines.next();
            }
            // One whose written pages are not told is not to be touched.
            if complete {
                return Some(mapping);
            }
        }
    })
}

fn head(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next().filter(|word| word.len() == 4)?;
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        permissions,
        path: words.nth(3).unwrap_or_default(),
        resident: 0,
        anonymous: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_pages_are_left_alone() {
        let smaps = "\
55d000-55e000 r--p 00000000 fe:00 123   /usr/bin/veer
Size:                  4 kB
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55e000-560000 r-xp 00001000 fe:00 123   /usr/bin/veer
Rss:                   8 kB
Anonymous:             0 kB
560000-561000 r--p 00003000 fe:00 123   /usr/bin/veer
Rss:                   4 kB
Anonymous:             4 kB
561000-562000 rw-p 00004000 fe:00 123   /usr/bin/veer
Rss:                   4 kB
Anonymous:             0 kB
562000-563000 r-xp 00000000 00:00 0     [vdso]
Rss:                   4 kB
Anonymous:             0 kB
563000-564000 r-xp 00000000 fe:00 124   /usr/lib/of-another-kernel.so
Rss:                   4 kB
";
        let all: Vec<_> = mappings(smaps).collect();
        assert_eq!(all.len(), 5);
        let released: Vec<_> = all.iter().filter(|one| one.is_untouched_program()).map(|one| one.start).collect();
        assert_eq!(released, [0x55d000, 0x55e000]);
        assert_eq!(all[1].resident, 8);
    }

    #[test]
    fn work_is_seen() {
        let begun = tokio::time::Instant::now();
        let before = processor_time().unwrap();
        while processor_time().unwrap() < before + RESTING {
            assert!(begun.elapsed() < Duration::from_secs(60), "no time is used");
        }
    }

    #[test]
    fn the_program_goes_on() {
        let before = format!("{:?}", "text".parse::<f64>());
        assert!(release_program(0).unwrap() > 0);
        assert_eq!(format!("{:?}", "text".parse::<f64>()), before);
    }
}
