//! Right checksums over changed bytes: what only a forger would write, or a bug. Readers must survive it.

use std::path::Path;

use crate::segment::format::{TRAILER_BYTES, Trailer, read_footer};

/// The file with every checksum made to fit its sections, its footer and its trailer; `None` where header, footer or trailer cannot be read.
pub fn with_right_checksums(file: &[u8]) -> Option<Vec<u8>> {
    let (trailer, mut footer) = read_footer(Path::new("forged"), file).ok()?;
    for section in footer.columns.iter_mut().flat_map(|column| &mut column.sections) {
        section.crc = crc32c::crc32c(&file[section.offset as usize..section.end() as usize]);
    }
    let encoded = footer.encode().ok()?;
    let end = file.len() - TRAILER_BYTES;
    let mut forged = file[..end - trailer.footer_bytes as usize].to_vec();
    forged.extend_from_slice(&encoded);
    forged.extend_from_slice(&Trailer { footer_crc: crc32c::crc32c(&encoded), ..trailer }.encode());
    Some(forged)
}

/// The file with the checksum of its footer made to fit, whatever the footer says; `None` where there is no trailer.
pub fn with_right_footer_checksum(file: &[u8]) -> Option<Vec<u8>> {
    let end = file.len().checked_sub(TRAILER_BYTES)?;
    let footer_bytes = u32::from_le_bytes(file[end + 8..end + 12].try_into().ok()?);
    let start = end.checked_sub(footer_bytes as usize)?;
    let mut forged = file.to_vec();
    let trailer = Trailer {
        file_bytes: file.len() as u64,
        footer_bytes,
        footer_crc: crc32c::crc32c(&file[start..end]),
        version: u32::from_le_bytes(file.get(8..12)?.try_into().ok()?),
    };
    forged[end..].copy_from_slice(&trailer.encode());
    Some(forged)
}
