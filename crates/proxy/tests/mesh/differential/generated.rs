//! Ordinary requests in many forms.

use fastrand::Rng;

use super::cases::Case;

/// So many requests that this seed makes.
pub fn cases(seed: u64, count: usize) -> Vec<Case> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|_| Case::new("generated", request(&mut rng), "")).collect()
}

fn request(rng: &mut Rng) -> Vec<u8> {
    let with_body = rng.bool();
    let method =
        *rng.choice(if with_body { ["POST", "PUT", "PATCH"] } else { ["GET", "DELETE", "OPTIONS"] }.iter()).unwrap();
    let mut lines = vec![format!("{method} {} HTTP/1.1", target(rng)), format!("{}: cart", cased(rng, "host"))];
    for _ in 0..rng.usize(..9) {
        // Few names: some come twice, and their order is to stay.
        let name = format!("x-{}", rng.choice(["color", "size", "a", "9", "tag-1", "trace"].iter()).unwrap());
        let space = [" ", "", "  ", "\t", " \t "];
        let (before, behind) = (rng.choice(space.iter()).unwrap(), rng.choice(space.iter()).unwrap());
        lines.push(format!("{}:{before}{}{behind}", cased(rng, &name), value(rng)));
    }
    let body = text(rng, 3000);
    if !with_body {
        return format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes();
    }
    if rng.bool() {
        lines.push(format!("{}: {}", cased(rng, "content-length"), body.len()));
        return format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes();
    }
    lines.push(format!("{}: {}", cased(rng, "transfer-encoding"), cased(rng, "chunked")));
    let mut all = format!("{}\r\n\r\n", lines.join("\r\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(rng.usize(1..=rest.len()));
        let zeros = "0".repeat(rng.usize(..3));
        all.push_str(&format!("{zeros}{:x}\r\n{chunk}\r\n", chunk.len()));
        rest = behind;
    }
    format!("{all}0\r\n\r\n").into_bytes()
}

fn target(rng: &mut Rng) -> String {
    let parts = ["/a", "/items;v=1", "/%20b", "/%C3%BC", "/x-y_z~", "/1,2", "/@me", "/(b)", "/*", "/=&+$!'"];
    let path: String = (0..rng.usize(1..5)).map(|_| *rng.choice(parts.iter()).unwrap()).collect();
    let query = ["", "?", "?q=1&q=2", "?u=http://other/?a", "?%20=+"];
    path + rng.choice(query).unwrap()
}

/// Visible characters, with spaces between them.
fn value(rng: &mut Rng) -> String {
    let words: Vec<String> = (0..rng.usize(..4))
        .map(|_| (0..rng.usize(1..9)).map(|_| rng.char('!'..='~')).filter(|c| *c != '\\').collect())
        .collect();
    words.join(" ").trim().to_owned()
}

fn text(rng: &mut Rng, most: usize) -> String {
    (0..rng.usize(..most)).map(|_| rng.char(' '..='~')).collect()
}

/// Letters in any case.
fn cased(rng: &mut Rng, text: &str) -> String {
    text.chars().map(|c| if rng.bool() { c.to_ascii_uppercase() } else { c }).collect()
}
