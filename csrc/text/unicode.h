/* Characters as pre-tokenizers see them. */
#ifndef EL_TEXT_UNICODE_H
#define EL_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/// Class of a code point. All but EL_CHAR_DIGIT follow the regex engine of `tokenizers` (Unicode 16). EL_CHAR_DIGIT:
/// characters that its digit splitter (Unicode 17) takes for numeric while its regexes do not know them yet.
typedef enum el_char_class {
    EL_CHAR_OTHER = 0,
    EL_CHAR_LETTER,  ///< \p{L}
    EL_CHAR_NUMBER,  ///< \p{N}
    EL_CHAR_SPACE,  ///< \s
    EL_CHAR_PUNCT,  ///< \p{P}
    EL_CHAR_DIGIT,
    EL_CHAR_MARK,  ///< \p{M}
    EL_CHAR_SYMBOL  ///< \p{S}
} el_char_class;

/// Case of a letter.
typedef enum el_char_case {
    EL_CASE_NONE = 0,  ///< Lm, Lo, and what is no letter
    EL_CASE_UPPER,  ///< Lu, Lt
    EL_CASE_LOWER  ///< Ll
} el_char_case;

/// What a byte that is not part of valid UTF-8 decodes to; its class is EL_CHAR_OTHER.
#define EL_NOT_UTF8 0xFFFFFFFFu

/// Class of any 32-bit value; EL_CHAR_OTHER beyond Unicode.
el_char_class el_unicode_class(uint32_t point);

/// Case of any 32-bit value.
el_char_case el_unicode_case(uint32_t point);

/// Decode one character of s[0, n), n > 0, strictly (no surrogates, no overlong forms).
/// Returns its length, 1 to 4; `*point` is EL_NOT_UTF8 for a byte that starts nothing valid.
size_t el_utf8_next(const uint8_t *s, size_t n, uint32_t *point);

/// One byte as the code point that GPT-2's byte alphabet writes for it, and back (-1 if it writes none).
uint32_t el_byte_to_point(uint8_t byte);
int el_point_to_byte(uint32_t point);

#endif
