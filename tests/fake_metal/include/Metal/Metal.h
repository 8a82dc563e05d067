/* The parts of Metal that memlimits' Metal files use, declared for the stand-in. Names, types and
 * values are those of metal-cpp, which Apple publishes. */
#ifndef FAKE_METAL_H
#define FAKE_METAL_H

#import <Foundation/Foundation.h>

@protocol MTLDevice;

typedef enum MTLGPUFamily : NSInteger {
    MTLGPUFamilyApple7 = 1007,
    MTLGPUFamilyMac2 = 2002,
    MTLGPUFamilyCommon3 = 3003,
    MTLGPUFamilyMetal3 = 5001,
} MTLGPUFamily;

typedef enum MTLPurgeableState : NSUInteger {
    MTLPurgeableStateKeepCurrent = 1,
    MTLPurgeableStateNonVolatile = 2,
    MTLPurgeableStateVolatile = 3,
    MTLPurgeableStateEmpty = 4,
} MTLPurgeableState;

typedef enum MTLResourceOptions : NSUInteger {
    MTLResourceCPUCacheModeDefaultCache = 0,
    MTLResourceStorageModeShared = 0,
    MTLResourceStorageModePrivate = 1 << 5,
    MTLResourceHazardTrackingModeUntracked = 1 << 8,
    MTLResourceHazardTrackingModeTracked = 1 << 9,
} MTLResourceOptions;

FROM_MACOS(14.0)
@interface MTLArchitecture : NSObject
@property (readonly) NSString *name;
@end

FROM_MACOS(15.0)
@protocol MTLAllocation <NSObject>
@property (readonly) NSUInteger allocatedSize;
@end

/* Older than what it adopts, and than another property of that name. */
@protocol MTLResource <MTLAllocation>
@property (readonly) NSUInteger allocatedSize;
- (MTLPurgeableState)setPurgeableState:(MTLPurgeableState)state;
@end

@protocol MTLBuffer <MTLResource>
- (void *)contents;
@property (readonly) NSUInteger length;
@end

FROM_MACOS(15.0)
@interface MTLResidencySetDescriptor : NSObject {
    NSString *_label;
    NSUInteger _initialCapacity;
}
@property (copy) NSString *label;
@property NSUInteger initialCapacity;
@end

/* Not thread-safe. */
FROM_MACOS(15.0)
@protocol MTLResidencySet <NSObject>
@property (readonly) NSUInteger allocationCount;
@property (readonly) uint64_t allocatedSize;
- (void)addAllocation:(id<MTLAllocation>)allocation;
- (void)removeAllocation:(id<MTLAllocation>)allocation;
- (void)removeAllAllocations;
- (BOOL)containsAllocation:(id<MTLAllocation>)allocation;
- (void)commit;
- (void)requestResidency;
- (void)endResidency;
@end

@protocol MTLCommandQueue <NSObject>
- (void)addResidencySet:(id<MTLResidencySet>)set FROM_MACOS(15.0);
- (void)addResidencySets:(const id<MTLResidencySet>[])sets count:(NSUInteger)count FROM_MACOS(15.0);
- (void)removeResidencySet:(id<MTLResidencySet>)set FROM_MACOS(15.0);
- (void)removeResidencySets:(const id<MTLResidencySet>[])sets
                      count:(NSUInteger)count FROM_MACOS(15.0);
@end

@protocol MTLDevice <NSObject>
@property (readonly) NSString *name;
@property (readonly) MTLArchitecture *architecture FROM_MACOS(14.0);
@property (readonly) uint64_t recommendedMaxWorkingSetSize;
@property (readonly) NSUInteger maxBufferLength;
@property (readonly) BOOL hasUnifiedMemory;
- (BOOL)supportsFamily:(MTLGPUFamily)family;
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options;
- (id<MTLResidencySet>)newResidencySetWithDescriptor:(MTLResidencySetDescriptor *)descriptor
                                               error:(NSError **)error FROM_MACOS(15.0);
- (id<MTLCommandQueue>)newCommandQueue;
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void);

#endif
