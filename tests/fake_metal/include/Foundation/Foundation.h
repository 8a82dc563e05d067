/* The parts of Foundation that memlimits' Metal files use, declared for the stand-in. */
#ifndef FAKE_FOUNDATION_H
#define FAKE_FOUNDATION_H

#include <objc/objc.h>
#include <objc/runtime.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef long NSInteger;
typedef unsigned long NSUInteger;
typedef NSUInteger NSStringEncoding;

enum { NSUTF8StringEncoding = 4 };

/* As in Apple's headers: compiling for an older macOS, clang says what is used without a guard. */
#define FROM_MACOS(version) __attribute__((availability(macos, introduced = version)))

@class NSString;

@protocol NSObject
- (id)retain;
- (oneway void)release;
- (id)autorelease;
- (BOOL)respondsToSelector:(SEL)selector;
@end

/* Retain counts stand in a header before each object: a constant string has none. */
__attribute__((objc_root_class))
@interface NSObject<NSObject> {
    Class isa;
}
+ (id)alloc;
- (id)init;
- (void)dealloc;
@end

/* What @autoreleasepool compiles to under -fobjc-runtime=gcc. */
@interface NSAutoreleasePool : NSObject
- (void)drain;
@end

/* stringWithUTF8String: is left out: metal-cpp, which selectors are checked by, lacks it. */
@interface NSString : NSObject
+ (id)stringWithCString:(const char *)bytes encoding:(NSStringEncoding)encoding;
@property (readonly) const char *UTF8String;
@end

/* The layout is clang's, for -fconstant-string-class=NSConstantString. */
@interface NSConstantString : NSString {
    char *bytes;
    unsigned int length;
}
@end

@interface NSError : NSObject
@property (readonly) NSInteger code;
@property (readonly, copy) NSString *localizedDescription;
@end

Class NSClassFromString(NSString *name);

#endif
