//! Strategy: any bytes as a file. Once as they are, once with the footer's checksum made right, so that mutations get past it. Whatever opens
//! is verified and read. Seed the corpus with `tests/golden/v1.segment`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_storage::testing::forge::with_right_footer_checksum;

mod read;

fuzz_target!(|bytes: &[u8]| {
    read::read(bytes);
    if let Some(forged) = with_right_footer_checksum(bytes) {
        read::read(&forged);
    }
});
