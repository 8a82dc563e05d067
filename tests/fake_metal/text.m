/* NSString, NSError, and looking a class up by its name. */
#include "text.h"

#include <string.h>

#include "ranges.h"
#include "objects.h"
#include "rules.h"

/* The bytes that UTF8String hands out: they go with the pool, and are then not readable. */
@interface FakeCharacters : NSObject {
@public
    fake_range *_range;
}
@end

@implementation FakeCharacters

- (void)dealloc
{
    fake_range_unmap(_range);
    [super dealloc];
}

@end

static const char *characters(const char *bytes)
{
    fake_need_pool("UTF8String");
    FakeCharacters *copy = [fake_make(objc_getClass("FakeCharacters")) init];
    copy->_range = fake_range_map(strlen(bytes) + 1, 4096, "the characters of UTF8String");
    if (!copy->_range)
        fake_break("the stand-in itself is out of memory");
    strcpy(fake_range_start(copy->_range), bytes);
    return fake_range_start([copy autorelease]->_range);
}

@interface FakeString : NSString {
@public
    char *_bytes;
}
@end

@implementation FakeString

- (const char *)UTF8String
{
    return METHOD_FAILS() ? NULL : characters(_bytes);
}

- (void)dealloc
{
    free(_bytes);
    [super dealloc];
}

@end

NSString *fake_string(const char *bytes)
{
    FakeString *string = [fake_make(objc_getClass("FakeString")) init];
    string->_bytes = strdup(bytes);
    return [string autorelease];
}

@implementation NSString

+ (id)stringWithCString:(const char *)bytes encoding:(NSStringEncoding)encoding
{
    bool fails = METHOD_FAILS();
    fake_need_pool("stringWithCString:encoding:");
    if (!bytes || encoding != NSUTF8StringEncoding)
        fake_break("stringWithCString:encoding: wants bytes, and here NSUTF8StringEncoding");
    return fails ? nil : fake_string(bytes);
}

- (const char *)UTF8String
{
    fake_break("an NSString was made that is no string");
}

@end

@implementation NSConstantString

- (const char *)UTF8String
{
    return METHOD_FAILS() ? NULL : characters(bytes);
}

- (id)retain
{
    CALLED();
    return self;
}

- (oneway void)release
{
    CALLED();
}

- (id)autorelease
{
    CALLED();
    fake_need_pool("autorelease");
    return self;
}

@end

@interface FakeError : NSError {
@public
    NSInteger _code;
    NSString *_description;
}
@end

@implementation FakeError

- (NSInteger)code
{
    CALLED();
    return _code;
}

- (NSString *)localizedDescription
{
    CALLED();
    fake_need_pool("localizedDescription");
    return [[_description retain] autorelease];
}

- (void)dealloc
{
    [_description release];
    [super dealloc];
}

@end

@implementation NSError

- (NSInteger)code
{
    fake_break("the error was looked at, although the call succeeded");
}

- (NSString *)localizedDescription
{
    fake_break("the error was looked at, although the call succeeded");
}

@end

NSError *fake_error(NSInteger code, const char *description)
{
    FakeError *error = [fake_make(objc_getClass("FakeError")) init];
    error->_code = code;
    error->_description = [fake_string(description) retain];
    return [error autorelease];
}

NSError *fake_error_of_success(void)
{
    return [[fake_make(objc_getClass("NSError")) init] autorelease];
}

Class NSClassFromString(NSString *name)
{
    static fake_call *_Atomic place;
    fake_not_forked("NSClassFromString");
    bool fails = fake_called(&place, "NSClassFromString");
    @autoreleasepool {
        const char *bytes = name.UTF8String;
        if (!bytes || fails)
            return Nil;
        if (!fake_has_residency() && strncmp(bytes, "MTLResidencySet", 15) == 0)
            return Nil;
        if (!fake_has_architecture() && strcmp(bytes, "MTLArchitecture") == 0)
            return Nil;
        return objc_lookUpClass(bytes);
    }
}
