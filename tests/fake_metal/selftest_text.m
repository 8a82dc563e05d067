/* Strings, and classes looked up by their names. */
#include <string.h>

#include "selftest.h"

KEEPS(strings_have_bytes)
{
    @autoreleasepool {
        CHECK(strcmp(@"constant".UTF8String, "constant") == 0);
        NSString *made = [NSString stringWithCString:"made" encoding:NSUTF8StringEncoding];
        CHECK(strcmp(made.UTF8String, "made") == 0);
        [[@"constant" retain] release];
        fake_metal_fail("UTF8String", 1);
        CHECK(made.UTF8String == NULL);
        CHECK(made.UTF8String != NULL);
        fake_metal_fail("stringWithCString:encoding:", 1);
        CHECK([NSString stringWithCString:"" encoding:NSUTF8StringEncoding] == nil);
    }
}

KEEPS(classes_are_found_by_name)
{
    CHECK(NSClassFromString(@"MTLResidencySetDescriptor") != Nil);
    CHECK(NSClassFromString(@"MTLNothing") == Nil);
    CHECK(NSClassFromString(nil) == Nil);
    fake_metal_fail("NSClassFromString", 1);
    CHECK(NSClassFromString(@"MTLResidencySetDescriptor") == Nil);
    fake_metal_set("older_macos", 1);
    CHECK(NSClassFromString(@"MTLResidencySetDescriptor") == Nil);
    CHECK(NSClassFromString(@"MTLArchitecture") != Nil);
    fake_metal_set("older_macos", 13);
    CHECK(NSClassFromString(@"MTLArchitecture") == Nil);
}

BREAKS(utf8string_without_a_pool, "UTF8String with no autorelease pool open")
{
    (void)@"constant".UTF8String;
}

BREAKS(string_without_a_pool, "stringWithCString:encoding: with no autorelease pool open")
{
    (void)[NSString stringWithCString:"made" encoding:NSUTF8StringEncoding];
}

BREAKS(string_of_nothing, "stringWithCString:encoding: wants bytes")
{
    @autoreleasepool {
        (void)[NSString stringWithCString:NULL encoding:NSUTF8StringEncoding];
    }
}

BREAKS(string_made_by_hand, "an NSString was made that is no string")
{
    (void)[[NSString alloc] init].UTF8String;
}

BREAKS(characters_outlive_no_pool, "the characters of UTF8String were touched after")
{
    const char *bytes;
    @autoreleasepool {
        bytes = @"constant".UTF8String;
    }
    CHECK(strlen(bytes) == 99);
}
