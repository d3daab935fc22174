//! The bytes of a segment file, version 3: header, sections, footer, trailer. `storage/README.md` is the description; this is the code.
//!
//! ```text
//! [header 64][section][pad]…[section][pad][footer][trailer 32]      all little-endian, sections at multiples of 64
//! ```
//!
//! What always holds: there is exactly one file for a given content, so that every byte is either covered by a checksum (sections,
//! footer) or has one right value (header, padding, trailer).

pub(crate) mod bytes;
mod footer;

use std::path::Path;

pub(crate) use self::footer::{ColumnFooter, Footer};
use crate::{Error, Result};

/// First eight bytes of a file.
pub(crate) const MAGIC: [u8; 8] = *b"TIDEMILL";
/// Last eight bytes of a file.
pub(crate) const END_MAGIC: [u8; 8] = *b"LLIMEDIT";
/// The version that is written. Every one up to it is read.
pub(crate) const VERSION: u32 = 3;
pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const TRAILER_BYTES: usize = 32;
/// Sections begin at multiples of this, so that any Arrow type can be read in place.
pub(crate) const ALIGNMENT: u64 = 64;
/// A footer is never longer: 2,000 columns with the longest names and statistics stay far below.
pub(crate) const FOOTER_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Where one run of bytes lies in the file, and its CRC-32C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

impl Section {
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

pub(crate) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGNMENT)
}

/// Magic, version, zeros.
pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// The last 32 bytes: how to find and check the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) file_bytes: u64,
    pub(crate) footer_bytes: u32,
    pub(crate) footer_crc: u32,
    pub(crate) version: u32,
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..8].copy_from_slice(&self.file_bytes.to_le_bytes());
        out[8..12].copy_from_slice(&self.footer_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.footer_crc.to_le_bytes());
        out[16..20].copy_from_slice(&self.version.to_le_bytes());
        out[24..].copy_from_slice(&END_MAGIC);
        out
    }

    fn decode(path: &Path, bytes: &[u8; TRAILER_BYTES]) -> Result<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[24..] != END_MAGIC {
            return Err(Error::corrupt(path, "trailer, magic", escape(&END_MAGIC), escape(&bytes[24..])));
        }
        if !(1..=VERSION).contains(&word(16)) {
            return Err(Error::corrupt(path, "trailer, version", format!("1 to {VERSION}"), word(16)));
        }
        if word(20) != 0 {
            return Err(Error::corrupt(path, "trailer, reserved bytes", 0, word(20)));
        }
        let file_bytes = u64::from(word(0)) | u64::from(word(4)) << 32;
        Ok(Self { file_bytes, footer_bytes: word(8), footer_crc: word(12), version: word(16) })
    }
}

/// Finds and checks header, trailer and footer in the bytes of a whole file. Reads no section.
pub(crate) fn read_footer(path: &Path, file: &[u8]) -> Result<(Trailer, Footer)> {
    let version = check_header(path, file)?;
    let (_, tail) = file
        .split_last_chunk::<TRAILER_BYTES>()
        .filter(|(before, _)| before.len() >= HEADER_BYTES)
        .ok_or_else(|| {
            Error::corrupt(path, "file length", format!("{} bytes or more", HEADER_BYTES + TRAILER_BYTES), file.len())
        })?;
    let trailer = Trailer::decode(path, tail)?;
    if trailer.version != version {
        return Err(Error::corrupt(path, "trailer, version", format!("{version}, as in the header"), trailer.version));
    }
    if trailer.file_bytes != file.len() as u64 {
        return Err(Error::corrupt(path, "file length", trailer.file_bytes, file.len()));
    }
    let end = file.len() - TRAILER_BYTES;
    let start = end
        .checked_sub(trailer.footer_bytes as usize)
        .filter(|start| *start >= HEADER_BYTES && trailer.footer_bytes <= FOOTER_BYTES_MAX)
        .ok_or_else(|| {
            Error::corrupt(
                path,
                "trailer, footer length",
                format!("at most {}", (end - HEADER_BYTES).min(FOOTER_BYTES_MAX as usize)),
                trailer.footer_bytes,
            )
        })?;
    let bytes = &file[start..end];
    let found = crc32c::crc32c(bytes);
    if found != trailer.footer_crc {
        return Err(Error::corrupt(path, "footer, CRC-32C", hex(trailer.footer_crc), hex(found)));
    }
    let footer = Footer::decode(path, bytes, start as u64)?;
    Ok((trailer, footer))
}

/// Where the part begins that makes [`read_footer`] fail: header, footer or trailer.
pub(crate) fn start_of_damage(path: &Path, file: &[u8]) -> usize {
    let Ok(version) = check_header(path, file) else { return 0 };
    let trailer_start = file.len().saturating_sub(TRAILER_BYTES);
    let trailer = file.last_chunk().and_then(|tail| Trailer::decode(path, tail).ok());
    if trailer.is_some_and(|trailer| trailer.version != version) {
        return 0;
    }
    trailer
        .filter(|trailer| trailer.file_bytes == file.len() as u64)
        .and_then(|trailer| trailer_start.checked_sub(trailer.footer_bytes as usize))
        .unwrap_or(trailer_start)
}

/// The version that the header says.
pub(crate) fn check_header(path: &Path, file: &[u8]) -> Result<u32> {
    let found = file.get(..HEADER_BYTES).ok_or_else(|| {
        Error::corrupt(path, "file length", format!("{} bytes or more", HEADER_BYTES + TRAILER_BYTES), file.len())
    })?;
    if found[..8] != MAGIC {
        return Err(Error::corrupt(path, "header, magic", escape(&MAGIC), escape(&found[..8])));
    }
    let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
    if !(1..=VERSION).contains(&version) {
        return Err(Error::corrupt(path, "header, version", format!("1 to {VERSION}"), version));
    }
    match (12..HEADER_BYTES).find(|at| found[*at] != 0) {
        Some(at) => Err(Error::corrupt(path, format!("header, reserved byte {at}"), 0, found[at])),
        None => Ok(version),
    }
}

pub(crate) fn hex(crc: u32) -> String {
    format!("{crc:#010x}")
}

pub(crate) fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
