//! Fields as lines of HTTP/1.1: out of a head's text, and back into text.

use super::{Field, Fields, Span};
use crate::name::Name;

impl Fields {
    /// Adds a field whose line lies in a head whose text comes next with [`Self::adopt`]: where in it the line is, without CR LF.
    #[inline]
    pub(crate) fn expect(&mut self, line: Span) {
        self.list.push(Field { name: Span::default(), value: line, known: Name::Other, sensitive: false, line: false });
    }

    /// Takes the text of the head that all expected lines lie in. Lines are parted into name and value, names are put into lower case
    /// and recognised, and those stay that `keep` wants. Nothing was in the buffer before.
    ///
    /// `None`: `parts` found a line that is no field.
    #[inline(always)]
    pub(crate) fn adopt(
        &mut self,
        text: &[u8],
        parts: impl Fn(&[u8], Span) -> Option<(Span, Span)>,
        mut keep: impl FnMut(Name, &[u8], &[u8]) -> bool,
    ) -> Option<()> {
        debug_assert!(self.text.is_empty(), "places in the head are places in the buffer");
        self.text.extend_from_slice(text);
        let mut all = true;
        for field in &mut self.list {
            let line = field.value;
            (field.name, field.value) = parts(text, line)?;
            field.line = field.value.start == field.name.end() + 2 && field.value.end() == line.end();
            field.known = Name::lower(self.text.get_mut(field.name.start as usize..field.name.end() as usize)?);
            if !keep(field.known, field.name.of(&self.text), field.value.of(text)) {
                field.name.length = 0;
                all = false;
            }
            self.names.add(field.known);
        }
        if !all {
            self.list.retain(|field| field.name.length > 0);
        }
        Some(())
    }

    /// Appends the lines of the fields that `keep` wants, as HTTP/1.1 writes them. Lines that already lie one behind the other are
    /// copied at once.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>, mut keep: impl FnMut(Name, &[u8], &[u8]) -> bool) {
        let (mut start, mut end) = (0, 0);
        for field in &self.list {
            if !keep(field.known, self.bytes(field.name), self.bytes(field.value)) {
                continue;
            }
            if field.line && field.name.start == end {
                end = field.value.end() + 2;
                continue;
            }
            out.extend_from_slice(&self.text[start as usize..end as usize]);
            if field.line {
                (start, end) = (field.name.start, field.value.end() + 2);
            } else {
                (start, end) = (0, 0);
                out.extend_from_slice(self.bytes(field.name));
                out.extend_from_slice(b": ");
                out.extend_from_slice(self.bytes(field.value));
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(&self.text[start as usize..end as usize]);
    }
}
