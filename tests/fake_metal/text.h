/* Strings and errors, as the stand-in makes them: autoreleased. */
#ifndef FAKE_TEXT_H
#define FAKE_TEXT_H

#import <Foundation/Foundation.h>

NSString *fake_string(const char *bytes);
NSError *fake_error(NSInteger code, const char *description);

/* An NSError that aborts when it is looked at: what an out parameter holds after success. */
NSError *fake_error_of_success(void);

#endif
